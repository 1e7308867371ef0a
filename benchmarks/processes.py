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
    process = Process(name, command, env, folder / f"{name}.log")
    try:
        yield process
    finally:
        process.stop()


class Process:
    def __init__(self, name: str, command: list[str], env: dict[str, str], log: Path) -> None:
        self.name, self.log = name, log
        with open(log, "wb") as out:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=env,
                stdout=out,
                stderr=out,
                start_new_session=True,
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
            if self.popen.poll() is not None or time.monotonic() > deadline:
                last = "\n".join(self.said().strip().splitlines()[-5:])
                raise Broken(f"{self.name} did not get ready; its last lines:\n{last}")
            time.sleep(0.05)

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGTERM)
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()

    def cpu_s(self) -> float:
        """Seconds of CPU, user and system, of the process and the ones below it that are alive."""
        return sum(_cpu_s(pid) for pid in _with_children(self.popen.pid))


def cpu_s(processes: Iterable[Process]) -> float:
    return sum(process.cpu_s() for process in processes)


def _cpu_s(pid: int) -> float:
    # proc(5): fields 14 and 15; the name in field 2 may hold spaces. All threads, the ended ones too.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def _with_children(pid: int) -> list[int]:
    found = [pid]
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in tasks.read_text().split():
            found += _with_children(int(child))
    return found
