"""arq with its default poll delay; results are not kept."""

from __future__ import annotations

import os
from typing import Any

from arq.connections import RedisSettings

from benchmarks.queue.marks import aenter
from benchmarks.queue.producer import WORK_S


async def noop(ctx: dict[str, Any], n: int) -> None:
    await aenter(n)


async def work_1ms(ctx: dict[str, Any], n: int) -> None:
    await aenter(n, WORK_S["work_1ms"])


class WorkerSettings:
    functions = (noop, work_1ms)
    redis_settings = RedisSettings.from_dsn(os.environ["BENCH_REDIS_URL"])
    max_jobs = int(os.environ.get("BENCH_SLOTS", "4"))
    keep_result = 0
