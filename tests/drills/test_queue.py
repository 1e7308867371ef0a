"""The smallest drill through the real command, and which drills a choice means."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from . import queue
from .outcome import Broken

ROOT = Path(__file__).resolve().parents[2]


def test_chosen__first_words_or_whole_names__are_found() -> None:
    assert len(queue.chosen(None)) > 30
    names = [drill.name for drill in queue.chosen("kill9-threads-ledger,dropped-task")]
    assert names == ["kill9-threads-ledger-sqlite", "kill9-threads-ledger-postgresql", "dropped-task"]
    with pytest.raises(Broken, match="no drill is called 'kill'"):
        queue.chosen("kill")


@pytest.mark.slow
def test_command__tenfold_duplicates__prints_what_the_checker_found() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.drills",
        "queue",
        "--only",
        "duplicates-sqlite",
        "--quick",
        "--json",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    (outcome,) = json.loads(done.stdout)
    assert {"drill", "lost", "duplicated", "failed", "recovered_s", "passed"} == set(outcome)
    assert (done.returncode, outcome["passed"]) == (0, True), done.stderr
