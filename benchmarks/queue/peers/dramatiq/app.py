"""Dramatiq on Redis with its default middleware."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.queue.marks import enter
from benchmarks.queue.producer import WORK_S

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_REDIS_URL"]))


@dramatiq.actor
def noop(n: int) -> None:
    enter(n)


@dramatiq.actor
def work_1ms(n: int) -> None:
    enter(n, WORK_S["work_1ms"])
