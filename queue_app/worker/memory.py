"""The memory of a worker: how much its process and the children of its pool take, and what need not be looked through."""

from __future__ import annotations

import gc
import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int | None:
    """None where there is no /proc. Pages that children share with their parent count in each."""
    try:
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        return sum(map(_resident, ["self", *children]))
    except OSError:
        return None


def keep_what_is_there() -> None:
    """Have the garbage collector pass over everything that was imported, which stays as long as the process.

    A full collection looks at some hundred thousand such objects, in the middle of a job; in a pool's child it would
    also copy the pages that it shares with its parent. Before the fork.
    """
    gc.collect()
    gc.freeze()


def _resident(pid: str) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except FileNotFoundError:  # it has just ended
        return 0
