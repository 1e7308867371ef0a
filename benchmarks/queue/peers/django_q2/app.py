"""django-q2 finds its functions by their dotted path."""

from __future__ import annotations

from benchmarks.queue.marks import enter
from benchmarks.queue.producer import WORK_S


def noop(n: int) -> None:
    enter(n)


def work_1ms(n: int) -> None:
    enter(n, WORK_S["work_1ms"])
