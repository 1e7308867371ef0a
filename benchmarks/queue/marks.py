"""When each job's handler was entered: one file of 64-bit numbers, mapped by all processes of a side.

    file: gate | entered of job 0 | entered of job 1 | …     nanoseconds of CLOCK_MONOTONIC, 0 = not yet

A job waits while its number is not below the gate: so a queue is filled while its workers are up and warm, and the
drain begins for all of them at once. A mark costs a handler well under a microsecond and needs no server.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import threading
import time
from pathlib import Path

CAPACITY = 4_000_000  # jobs in the life of one side; the file is sparse
GATE_POLL_S = 0.005
_FILE, _PIDS = "BENCH_MARKS", ".pids"

_lock = threading.Lock()
_opened: tuple[int, memoryview] | None = None


def enter(number: int, work_s: float = 0.0) -> None:
    """The handler of a sync side: wait for the gate, leave the mark, work."""
    view = _view()
    while number >= view[0]:
        time.sleep(GATE_POLL_S)
    view[number + 1] = time.monotonic_ns()
    if work_s:
        time.sleep(work_s)


async def aenter(number: int, work_s: float = 0.0) -> None:
    """The handler of an async side."""
    view = _view()
    while number >= view[0]:
        await asyncio.sleep(GATE_POLL_S)
    view[number + 1] = time.monotonic_ns()
    if work_s:
        await asyncio.sleep(work_s)


def _view() -> memoryview:
    """This process's mapping: a fork makes its own, and tells its pid."""
    if _opened is None or _opened[0] != os.getpid():
        _open(os.environ[_FILE])
    assert _opened is not None
    return _opened[1]


def _open(path: str) -> None:
    global _opened
    with _lock:
        if _opened is not None and _opened[0] == os.getpid():
            return
        view = _mapped(path)
        with open(path + _PIDS, "a") as pids:  # O_APPEND: one short write is never torn
            pids.write(f"{os.getpid()}\n")
        _opened = (os.getpid(), view)


def _mapped(path: str) -> memoryview:
    with open(path, "r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("q")


class Marks:
    """The rig's end of the file."""

    def __init__(self, path: Path) -> None:
        with open(path, "wb") as file:
            file.truncate(8 * (CAPACITY + 1))
        self.env = {_FILE: str(path)}
        self._view = _mapped(str(path))
        self._pids = Path(f"{path}{_PIDS}")
        self._pids.touch()
        self.open()

    def open(self) -> None:
        """Let every job through."""
        self._view[0] = CAPACITY

    def close_at(self, number: int) -> None:
        """Hold jobs of this number and above."""
        self._view[0] = number

    def entered_ns(self, first: int, count: int) -> list[int]:
        """Of `count` jobs from `first`; 0 where the handler has not been entered."""
        return self._view[1 + first : 1 + first + count].tolist()

    def processes(self) -> int:
        """How many processes have run a job."""
        return len(set(self._pids.read_text().split()))
