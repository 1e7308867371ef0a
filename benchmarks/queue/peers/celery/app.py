"""Stock Celery as its documentation starts it; results are not kept, as on every side."""

from __future__ import annotations

import os

from celery import Celery

from benchmarks.queue.marks import enter
from benchmarks.queue.producer import WORK_S

app = Celery("bench", broker=os.environ["BENCH_REDIS_URL"] or os.environ["BENCH_AMQP_URL"])
app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True


@app.task(name="noop")
def noop(n: int) -> None:
    enter(n)


@app.task(name="work_1ms")
def work_1ms(n: int) -> None:
    enter(n, WORK_S["work_1ms"])
