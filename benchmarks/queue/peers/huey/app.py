"""Huey on Redis; results are not kept."""

from __future__ import annotations

import os

from huey import RedisHuey

from benchmarks.queue.marks import enter
from benchmarks.queue.producer import WORK_S

huey = RedisHuey("bench", url=os.environ["BENCH_REDIS_URL"], results=False)


@huey.task()
def noop(n: int) -> None:
    enter(n)


@huey.task()
def work_1ms(n: int) -> None:
    enter(n, WORK_S["work_1ms"])
