"""Payloads, coroutines and unique keys from enqueue to the end, through real workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from queue_app import enqueue
from queue_app.models import Job

from .conftest import until
from .jobs_app import tasks

CARD = "4111-1111-1111-1111"  # no id and no time in the log holds it

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize(
    "pool", [("-P", "threads", "-c", "2"), ("-P", "prefork", "-c", "2")], ids=["threads", "prefork"]
)
def test_worker__every_kind_of_handler_and_payload__ends_as_it_should(
    start_worker: Callable[..., Any], pool: tuple[str, ...]
) -> None:
    worker = start_worker(*pool)
    large = enqueue(tasks.echo, {"text": "x" * 200_000, "card": {"number": CARD, "name": "Ada"}})
    parent = enqueue(tasks.breed, {})
    slow = enqueue(tasks.outstay, {})
    shared = enqueue(tasks.stock_trace, {"args": ["/dev/null"], "kwargs": {"number": 1}})
    over = ["COMPLETED", "DEAD_LETTER"]
    until(lambda: not Job.objects.exclude(state__in=over).exists(), "every job ends")
    rows = {job.id: job for job in Job.objects.all()}
    assert rows[large.id].result == {"card": {"number": CARD, "name": "Ada"}, "length": 200_000}
    assert rows[large.id].payload is None
    assert (rows[parent.id].result, rows[parent.id].attempt) == ([1, 2], 2)
    assert (rows[slow.id].state, rows[slow.id].last_error["type"]) == ("DEAD_LETTER", "SoftTimeLimitExceeded")
    assert rows[shared.id].state == "COMPLETED"
    (child,) = [job for job in rows.values() if job.parent]
    assert (child.parent, child.name, child.result["length"]) == (parent.id, "jobs.echo", 5)
    assert CARD not in worker.log
