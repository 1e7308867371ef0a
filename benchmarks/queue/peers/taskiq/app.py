"""taskiq on a Redis stream with acknowledgements; no result backend."""

from __future__ import annotations

import os

from taskiq_redis import RedisStreamBroker

from benchmarks.queue.marks import aenter
from benchmarks.queue.producer import WORK_S

broker = RedisStreamBroker(url=os.environ["BENCH_REDIS_URL"])


@broker.task(task_name="noop")
async def noop(n: int) -> None:
    await aenter(n)


@broker.task(task_name="work_1ms")
async def work_1ms(n: int) -> None:
    await aenter(n, WORK_S["work_1ms"])
