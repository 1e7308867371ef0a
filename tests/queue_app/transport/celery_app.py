"""A Celery app of its own, without Django, for workers on our transport or on stock Kombu's."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery

from queue_app.transport import register

register()

app = Celery(
    "transport_tests",
    broker=os.environ.get("BROKER"),
    backend=os.environ.get("BACKEND"),
    set_as_current=False,  # the tests import it beside the site's app
)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=not os.environ.get("BACKEND"),
    worker_prefetch_multiplier=int(os.environ.get("PREFETCH", "8")),
    worker_disable_prefetch=bool(os.environ.get("ONE_BY_ONE")),
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "visibility_timeout": float(os.environ.get("VISIBILITY_S", "3600")),
        "unacked_restore_interval": 1,
        "health_check_interval": 2,
        "socket_timeout": float(os.environ.get("SOCKET_TIMEOUT_S", "5")),
        "global_keyprefix": os.environ.get("PREFIX", ""),
    },
    broker_connection_max_retries=None,
)


@app.task(name="trace")
def trace(file: str, number: Any, nap_s: float = 0) -> None:
    """One line a start, written at once: O_APPEND keeps the lines of several processes whole."""
    with open(file, "ab", buffering=0) as out:
        out.write(f"{number}\n".encode())
    time.sleep(nap_s)


@app.task(name="add", ignore_result=False)
def add(left: int, right: int) -> int:
    return left + right


@app.task(name="total", ignore_result=False)
def total(numbers: list[int]) -> int:
    return sum(numbers)
