"""The broker's part, on a real Valkey and on one that is not there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from celery import current_app
from django.utils import timezone

from queue_app import Priority, aenqueue, enqueue, health, reconciler, wakeup
from queue_app.models import Job

from .jobs_app import tasks

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def no_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CELERY_BROKER_WRITE_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setattr(wakeup, "_down_until", 0.0)
    monkeypatch.setattr(wakeup, "_broker", None)
    yield
    wakeup._down_until = 0.0


def received(queue: str) -> list[str]:
    """The ids in the queue, as a worker would get them."""
    found = []
    with (
        current_app.connection_for_read() as broker,
        broker.SimpleQueue(queue) as waiting,
        contextlib.suppress(waiting.Empty),
    ):
        while True:
            message = waiting.get_nowait()
            found.append(message.headers["id"])
            message.ack()
    return found


def test_enqueue__priorities__urgent_message_is_received_first(own_queue: str) -> None:
    order = [Priority.LOW, Priority.NORMAL, Priority.CRITICAL, Priority.HIGH]
    ids = {priority: str(enqueue(own_queue, {}, priority=priority).id) for priority in order}
    assert received(own_queue) == [ids[priority] for priority in sorted(order, reverse=True)]


def test_depth__messages_wait__counts_all_priorities_and_none_for_an_unknown_queue(own_queue: str) -> None:
    assert wakeup.depth(own_queue) == 0
    enqueue(own_queue, {}, priority=Priority.LOW)
    enqueue(own_queue, {}, priority=Priority.HIGH)
    assert wakeup.depth(own_queue) == 2


def test_enqueue__broker_is_down__row_is_kept_at_once_and_published_later(
    own_queue: str, no_broker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    jobs = [enqueue(own_queue, {}) for _ in range(3)]
    assert time.monotonic() - began < 15  # it does not try for the minutes that Celery would
    assert list(Job.objects.values_list("state", "published_at").distinct()) == [("PENDING", None)]
    monkeypatch.undo()
    reconciler.publish_due()
    assert sorted(received(own_queue)) == [str(job.id) for job in jobs]


def test_publish_due__message_was_lost__sends_it_again_once_the_queue_is_empty(own_queue: str) -> None:
    job, waiting = enqueue(own_queue, {}), enqueue(own_queue, {})
    Job.objects.update(published_at=timezone.now() - timedelta(minutes=5))
    reconciler.publish_due()  # the queue is not empty: the messages may just be waiting
    assert len(received(own_queue)) == 2
    reconciler.publish_due()
    assert received(own_queue) == [str(job.id), str(waiting.id)]
    reconciler.publish_due()  # just published: nothing is stale
    assert received(own_queue) == []


async def test_aenqueue__from_async_code__stores_the_job() -> None:
    job = await aenqueue(tasks.trace, {"number": 1}, delay=60)
    assert (await Job.objects.aget(id=job.id)).published_at is None


def test_check__broker_answers_or_not__says_so(no_broker: None, monkeypatch: pytest.MonkeyPatch) -> None:
    down = health.check()
    assert (down.name, down.ok) == ("broker", False)
    assert down.took_ms < 30_000
    monkeypatch.undo()
    up = health.check()
    assert up.ok
    assert up.detail == "redis answers; 0 workers alive"
