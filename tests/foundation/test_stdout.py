"""A stdout that takes nothing, to the commands as they are started: `>/dev/full`, `| head -1`, `>&-`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from foundation import stdout
from tests import warm

ROOT = Path(__file__).parents[2]
COMMANDS = [
    "queue --help",
    "queue list --help",
    "gateway diff --help",
    "cache --help",
    "database",
    "database --json",
]

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A platform of its own, whose database is empty."""
    folder = tmp_path_factory.mktemp("platform")
    return {**os.environ, "BRAIN_DATA_DIR": str(folder), "REDIS_URL": "redis://127.0.0.1:1/0"}


def manage(command: str, environment: dict[str, str], **streams: Any) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "manage.py", *command.split()]
    streams = {"stderr": subprocess.PIPE} | streams
    return warm.run(argv, cwd=ROOT, env=environment, text=True, timeout=180, **streams)


@pytest.fixture
def full() -> Iterator[Any]:
    with open("/dev/full", "w") as file:
        yield file


@pytest.mark.parametrize("command", COMMANDS)
def test_command__stdout_is_full__one_line_and_exit_code_1(command, environment, full):
    ended = manage(command, environment, stdout=full)
    (told,) = ended.stderr.splitlines()
    assert (ended.returncode, "stdout: No space left on device" in told) == (1, True)
    assert told.startswith('{"error":' if "--json" in command else "error:")


@pytest.mark.parametrize("command", COMMANDS)
def test_command__reader_has_left__ends_quietly_as_after_sigpipe(command, environment):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        ended = manage(command, environment, stdout=pipe)
    assert (ended.returncode, ended.stderr) == (stdout.READER_LEFT, "")


def test_command__without_a_stdout__one_line_and_exit_code_1(environment):
    shell = f"exec {sys.executable} manage.py database >&-"
    ended = subprocess.run(
        ["sh", "-c", shell], cwd=ROOT, env=environment, text=True, timeout=180, stderr=subprocess.PIPE
    )
    assert (ended.returncode, ended.stderr) == (1, "error: stdout: Bad file descriptor\n")
