"""The processes of one side: started in sessions of their own, measured by /proc, stopped with the benchmark."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Broken(Exception):
    """A side could not be started or did not do its work: there is no figure."""


@contextlib.contextmanager
def running(name: str, command: list[str], *, env: dict[str, str], folder: Path) -> Iterator[Process]:
    """`python -m command…`, its output in folder/name.log."""
    process = Process(name, [sys.executable, "-m", *command], env, folder / f"{name}.log")
    try:
        yield process
    finally:
        process.stop()


class Process:
    def __init__(self, name: str, argv: list[str], env: dict[str, str], log: Path) -> None:
        self.name, self.log = name, log
        with open(log, "wb") as out:
            self.popen = subprocess.Popen(
                argv, cwd=ROOT, env=env, stdout=out, stderr=out, start_new_session=True
            )

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, ready: Callable[[], object], timeout_s: float = 30.0) -> None:
        """Until `ready()` is true; OSError means not yet. Raises Broken with the last lines."""
        deadline = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(OSError):
                if ready():
                    return
            code = self.popen.poll()
            if code is not None or time.monotonic() > deadline:
                how = f"in {timeout_s:.0f} s" if code is None else f"but ended with exit code {code}"
                raise Broken(f"{self.name} did not get ready {how}; its last lines:\n{self.last_lines()}")
            time.sleep(0.05)

    def last_lines(self) -> str:
        return "\n".join(self.said().strip().splitlines()[-5:])

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGTERM)
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """At once, with everything below it: for processes that hold nothing worth a graceful end."""
        pids = with_children(self.popen.pid)
        with contextlib.suppress(ProcessLookupError):
            # All in one go: nginx starts a new worker for one that is killed before it is.
            os.killpg(self.popen.pid, signal.SIGKILL)
        for pid in reversed(pids):  # those that left the group
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.popen.wait()

    def cpu_s(self) -> float:
        return tree_cpu_s(self.popen.pid)

    def anonymous_bytes(self) -> int:
        """Memory of the process and the ones below it; files they map are not counted."""
        return sum(_anonymous_bytes(pid) for pid in with_children(self.popen.pid))


def environment(**variables: object) -> dict[str, str]:
    """The caller's environment without any setting of ours, and `variables`."""
    ours = ("BRAIN_", "DATABASE_URL", "REDIS_URL", "BROKER_URL", "DJANGO_SETTINGS_MODULE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {name: str(value) for name, value in variables.items()}


def cpu_s(processes: Iterable[Process]) -> float:
    return sum(process.cpu_s() for process in processes)


def tree_cpu_s(pid: int) -> float:
    """Seconds of CPU, user and system, of the process and all below it, those that have ended included."""
    return sum(_cpu_s(each) for each in with_children(pid))


def with_children(pid: int) -> list[int]:
    """The process and the ones below it that are alive."""
    found = [pid]
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in tasks.read_text().split():
                found += with_children(int(child))
    return found


def _cpu_s(pid: int) -> float:
    # proc(5): fields 14 to 17, own time and that of the children waited for; the name in field 2 may hold spaces.
    # All threads, the ended ones too. A process that ends between listing and reading is in its parent's next sum.
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) * _TICK_S


def _anonymous_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0
