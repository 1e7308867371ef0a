from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from brain_project import embedded

USER = """
import signal, sys, time, pathlib
from brain_project import embedded
signal.signal(signal.SIGINT, signal.default_int_handler)  # of a shell's background job it would be ignored
home = pathlib.Path(sys.argv[1])
try:
    embedded.start(home, home / "valkey" / "valkey.sock")
except embedded.NotStarted as error:
    sys.exit(str(error))
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def user(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts processes that use the embedded Valkey of this test's data directory."""
    started = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", USER, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    assert embedded.gone(tmp_path / "valkey" / "valkey.sock", timeout_s=60)


def answers(sock: Path) -> bool:
    """In the end: one look may find a machine that stands still."""
    deadline = time.monotonic() + 30
    while not embedded.answers(sock):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def client(tmp_path: Path) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(tmp_path / "valkey" / "valkey.sock"))


def test_start__two_processes_at_once__share_one_server_until_the_last_is_killed(user, tmp_path):
    sock = tmp_path / "valkey" / "valkey.sock"
    first, second = user(), user()
    assert first.stdout.readline() == second.stdout.readline() == "ready\n"
    with client(tmp_path) as valkey:
        assert valkey.info("server")["process_id"] > 0
        assert valkey.config_get("appendonly")["appendonly"] == "yes"
        assert valkey.config_get("port")["port"] == "0"
    first.kill()
    first.wait()
    time.sleep(0.3)
    assert answers(sock)
    second.kill()
    second.wait()
    assert embedded.gone(sock, timeout_s=60)


def test_start__after_every_user_was_killed__finds_the_data_again(user, tmp_path):
    first = user()
    assert first.stdout.readline() == "ready\n"
    with client(tmp_path) as valkey:
        valkey.set("kept", "yes")
    first.kill()
    first.wait()
    second = user()  # at once: it waits for the old server to stop, or joins it
    assert second.stdout.readline() == "ready\n"
    with client(tmp_path) as valkey:
        assert valkey.get("kept") == b"yes"


def test_start__ctrl_c_in_the_terminal__does_not_reach_the_server(user, tmp_path):
    process = user()
    assert process.stdout.readline() == "ready\n"
    with client(tmp_path) as valkey:
        server = valkey.info("server")["process_id"]
    assert os.getsid(server) != os.getsid(process.pid)
    process.send_signal(signal.SIGINT)
    process.wait()
    assert embedded.gone(tmp_path / "valkey" / "valkey.sock", timeout_s=60)


def test_start__corrupt_append_only_file__names_it_and_the_fix(user, tmp_path):
    first = user()
    assert first.stdout.readline() == "ready\n"
    first.kill()
    first.wait()
    assert embedded.gone(tmp_path / "valkey" / "valkey.sock", timeout_s=60)
    (tmp_path / "valkey" / "appendonlydir" / "appendonly.aof.1.incr.aof").write_bytes(
        b"*3\r\ngarbage\r\n" * 20
    )
    second = user()
    out, err = second.communicate(timeout=120)
    assert (second.returncode, out) == (1, "")
    assert "cannot read its append-only file" in err
    assert "mv " in err
