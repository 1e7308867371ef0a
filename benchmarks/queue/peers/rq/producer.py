from __future__ import annotations

import os

from redis import Redis
from rq import Queue

from benchmarks.queue.producer import serve

from . import app

TASKS = {"noop": app.noop, "work_1ms": app.work_1ms}
KEEP_NOTHING = {"result_ttl": 0}

queue = Queue(connection=Redis.from_url(os.environ["BENCH_REDIS_URL"]))


def one(task: str, number: int) -> None:
    queue.enqueue(TASKS[task], number, **KEEP_NOTHING)


def many(task: str, numbers: range) -> None:
    queue.enqueue_many([Queue.prepare_data(TASKS[task], (number,), **KEEP_NOTHING) for number in numbers])


if __name__ == "__main__":
    serve(one, many)
