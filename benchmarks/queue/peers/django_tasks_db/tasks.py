from __future__ import annotations

from django_tasks import task

from benchmarks.queue.marks import enter
from benchmarks.queue.producer import WORK_S


@task()
def noop(n: int) -> None:
    enter(n)


@task()
def work_1ms(n: int) -> None:
    enter(n, WORK_S["work_1ms"])
