"""RQ's functions; results are not kept."""

from __future__ import annotations

from benchmarks.queue.marks import enter
from benchmarks.queue.producer import WORK_S


def noop(n: int) -> None:
    enter(n)


def work_1ms(n: int) -> None:
    enter(n, WORK_S["work_1ms"])
