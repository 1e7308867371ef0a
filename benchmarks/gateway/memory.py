"""How much a process grew at most while something happened: the kernel's own high-water mark, not samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.processes import Broken, with_children

_RESET_PEAK = "5"  # proc(5), clear_refs: VmHWM starts again from what is resident now


def growth_bytes(pid: int, work: Callable[[], object]) -> int:
    """Of the process and those below it, each at its own peak."""
    pids = with_children(pid)
    before = 0
    for each in pids:
        Path(f"/proc/{each}/clear_refs").write_text(_RESET_PEAK)
        before += resident_bytes(each, "VmRSS")
    work()
    return sum(resident_bytes(each, "VmHWM") for each in pids) - before


def resident_bytes(pid: int, which: str) -> int:
    return read_status(Path(f"/proc/{pid}/status").read_text(), which)


def read_status(text: str, which: str) -> int:
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == which:
            return int(value.split()[0]) * 1024
    raise Broken(f"/proc says nothing of {which}")
