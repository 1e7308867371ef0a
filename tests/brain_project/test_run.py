"""A running platform: what happens when its parts die, and how it is stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from brain_project import embedded
from tests import warm
from tests.servers import free_port

pytestmark = pytest.mark.slow


def until(condition: Callable[[], Any], timeout_s: float = 180.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)
    return found


class Platform:
    """`manage.py up` on a data directory of its own, without the demo: fewer processes."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir, self.log = data_dir, data_dir / "terminal.log"
        self.process: subprocess.Popen[bytes] | None = None
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BRAIN_")}
        self.env = {**kept, "BRAIN_DATA_DIR": str(data_dir), "BRAIN_DEMO": "0"}

    def manage(self, *arguments: str) -> list[str]:
        return [sys.executable, "manage.py", *arguments]

    def up(self, *arguments: str) -> None:
        ports = ["--port", str(free_port()), "--edge-port", str(free_port())]
        with open(self.log, "wb") as out:
            self.process = warm.Popen(
                self.manage("up", *ports, *arguments), env=self.env, stdout=out, stderr=out
            )
        until(lambda: "is ready" in self.said() or self.process.poll() is not None)
        assert self.process.poll() is None, self.said()

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def pids(self) -> dict[str, int]:
        return json.loads((self.data_dir / "up.json").read_text())["pids"]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(90)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    platform = Platform(tmp_path)
    yield platform
    if platform.process is not None and platform.process.poll() is None:
        platform.process.kill()
        platform.process.wait()
    assert embedded.gone(tmp_path / "valkey" / "valkey.sock", timeout_s=90)


def test_up__ready__supervises_without_django_under_the_same_pid(platform):
    platform.up()
    assert platform.pids["up"] == platform.process.pid
    command = Path(f"/proc/{platform.process.pid}/cmdline")
    if command.exists():
        assert b"brain_project.run" in command.read_bytes()
        assert b"password" not in command.read_bytes()
    assert platform.stop() == 0
    assert platform.pids == {}
    assert "Valkey stopped" in platform.said()


def test_up__children_and_valkey_killed__all_come_back(platform):
    platform.up()
    before = platform.pids
    for name in ("web", "worker"):
        os.kill(before[name], signal.SIGKILL)
    until(lambda: all(platform.pids.get(name, before[name]) != before[name] for name in ("web", "worker")))
    assert "web ended by itself with code 137" in platform.said()
    sock = platform.data_dir / "valkey" / "valkey.sock"
    first = server(sock)
    os.kill(keeper(platform.data_dir), signal.SIGTERM)
    until(lambda: server(sock) not in (None, first))
    status = platform.manage("status", "--json")
    until(lambda: warm.run(status, env=platform.env, capture_output=True).returncode == 0)
    assert platform.stop() == 0


def server(sock: Path) -> int | None:
    """The pid of the Valkey that answers there."""
    with contextlib.suppress(redis.ConnectionError), redis.Redis(unix_socket_path=str(sock)) as client:
        return client.info("server")["process_id"]
    return None


def keeper(data_dir: Path) -> int:
    """The pid of the process that keeps its Valkey."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # others come and go meanwhile
            text = path.read_bytes()
            if b"keeper.py" in text and str(data_dir).encode() in text:
                return int(path.parent.name)
    raise AssertionError("there is none")


def test_up__fail_fast__stops_with_the_childs_code(platform):
    platform.up("--fail-fast")
    os.kill(platform.pids["edge"], signal.SIGKILL)
    assert platform.process.wait(90) == 137


def test_up__supervisor_killed__its_lock_is_free_and_nothing_is_left(platform):
    platform.up()
    pids = platform.pids
    platform.process.kill()
    platform.process.wait()
    status = warm.run(platform.manage("status"), env=platform.env, capture_output=True, text=True)
    assert "not running" in status.stdout
    for pid in (pid for name, pid in pids.items() if name != "up"):
        until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), timeout_s=90)


def test_detach__then_down__says_where_it_is_and_stops_it(platform):
    ports = ["--port", str(free_port()), "--edge-port", str(free_port())]
    up = platform.manage("up", "--detach", *ports)
    done = warm.run(up, env=platform.env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    pid = platform.pids["up"]
    assert f"pid {pid}; `./brain down` stops it." in done.stdout
    down = warm.run(platform.manage("down"), env=platform.env, capture_output=True, text=True)
    assert (down.returncode, down.stdout.strip()) == (0, f"stopped pid {pid}")


def test_up__json__is_one_document_on_stdout(platform):
    ports = ["--port", str(free_port()), "--edge-port", str(free_port())]
    with open(platform.log, "wb") as err:
        platform.process = warm.Popen(
            platform.manage("up", "--json", *ports), env=platform.env, stdout=subprocess.PIPE, stderr=err
        )
    state = json.loads(platform.process.stdout.readline())
    assert state["pids"]["up"] == platform.process.pid
    assert platform.stop() == 0
    assert platform.process.stdout.read() == b""
    platform.process.stdout.close()
