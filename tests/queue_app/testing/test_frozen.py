"""Frozen time on every database: what waits for a moment is tested by moving to it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, connections
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.timezone import now as imported_now

from foundation.models import AuditEntry
from queue_app import (
    Retry,
    Unique,
    aenqueue,
    clock,
    enqueue,
    enqueue_many,
    ledger,
    policies,
    queues,
    schedules,
    task,
    workers,
)
from queue_app.clock import Clock
from queue_app.models import Job, JobEvent, Worker
from queue_app.runs import Run
from queue_app.testing import (
    Drained,
    adrain,
    all_enqueued,
    assert_enqueued,
    drain,
    fire_schedules,
    frozen_time,
    no_broker,
)
from tests.queue_app.testing import test_draining as kit

pytestmark = pytest.mark.usefixtures("every_database", "_published")

NOON = datetime(2030, 5, 1, 12, 0, tzinfo=UTC)
SEEN: list[Any] = []


@pytest.fixture
def _published(every_database: None) -> Iterator[None]:
    SEEN.clear()
    with no_broker():
        yield
    policies.forget()


@task(queue="kit_time", name="kit.tell_time", max_retries=3)
def tell_time(payload: dict[str, Any], job: Run) -> str:
    SEEN.append(payload.get("n"))
    if job.attempt <= payload.get("fails", 0):
        raise Retry(after=60)
    return timezone.now().isoformat()


def test_frozen_time__every_clock__stands_and_moves() -> None:
    with frozen_time(NOON) as frozen:
        for moment in (NOON, NOON + timedelta(hours=1, milliseconds=7)):
            frozen.move_to(moment)
            asked = [clock.now(), clock.read(), timezone.now(), imported_now(), AuditEntry().created_at]
            job = Job.objects.get(id=enqueue(tell_time, {}).id)
            Job.objects.filter(id=job.id).update(started_at=Clock(), finished_at=Now())
            job.refresh_from_db()
            asked += [job.created_at, job.started_at, job.events.get().at]
            asked += (
                [job.finished_at] if connection.vendor != "mysql" else []
            )  # Django's is in the server's zone there
            assert set(asked) == {moment}
        assert frozen.move(-3600) == NOON + timedelta(milliseconds=7)
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(minutes=5)
    assert timezone.now() < NOON
    assert clock.read() < NOON


def test_frozen_time__other_threads__are_governed_whatever_connections_they_have() -> None:
    found: list[datetime] = []

    def look() -> datetime:
        found.extend([clock.read(), timezone.now()])
        return clock.read()

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(look).result(20) < NOON  # its connection is there
        with frozen_time(NOON):
            thread.submit(look).result(20)
        assert thread.submit(look).result(20) < NOON
        thread.submit(connections.close_all).result(20)
    assert found[2:4] == [NOON, NOON]


def test_frozen_time__coroutine__its_statements_are_governed_on_whichever_thread() -> None:
    """As in a test that is a coroutine: the block is on the loop's thread, the ORM is not."""
    clock.read()

    async def run() -> None:
        with frozen_time(NOON) as frozen:
            await aenqueue(tell_time, {}, delay=5)
            assert await adrain() == Drained()
            frozen.move(5)
            assert await adrain() == Drained(completed=1)

    async_to_sync(run)()


def test_frozen_time__nested__the_inner_clock_goes() -> None:
    with frozen_time(NOON) as outer:
        with frozen_time(NOON + timedelta(days=1)) as inner:
            inner.move(1)
            assert clock.read() == timezone.now() == NOON + timedelta(days=1, seconds=1)
        assert clock.read() == timezone.now() == outer.now == NOON


@pytest.mark.parametrize("at", [datetime(2030, 5, 1, 12, 0), "noon"])  # noqa: DTZ001
def test_frozen_time__no_time_zone__is_refused(at: Any) -> None:
    with pytest.raises(ValueError, match="is not a datetime with a time zone"), frozen_time(at):
        pass
    with frozen_time(NOON) as frozen, pytest.raises(ValueError, match="with a time zone"):
        frozen.move_to(at)


@pytest.mark.parametrize("ms", [0, 1, 120, 999])
def test_frozen_time__delay__is_due_when_it_has_passed_and_not_before(ms: int) -> None:
    begin = NOON + timedelta(milliseconds=ms)
    with frozen_time(begin) as frozen:
        job = enqueue(tell_time, {}, delay=60)
        assert assert_enqueued(tell_time, delay=60, tolerance=0, run_at=begin + timedelta(minutes=1)) == job
        frozen.move(timedelta(seconds=59, milliseconds=999))
        assert drain() == Drained()
        frozen.move(0.001)
        assert drain() == Drained(completed=1)
        job.refresh_from_db()
        assert job.result == (begin + timedelta(minutes=1)).isoformat()
        assert job.started_at == job.finished_at == begin + timedelta(minutes=1)


@pytest.mark.parametrize("ms", [0, 120])
def test_frozen_time__retry__waits_out_its_time(ms: int) -> None:
    with frozen_time(NOON + timedelta(milliseconds=ms)) as frozen:
        job = enqueue(tell_time, {"fails": 1})
        assert drain() == Drained(failed=1)
        job.refresh_from_db()
        assert job.run_after == frozen.now + timedelta(minutes=1)
        frozen.move(59)
        assert drain() == Drained()
        frozen.move(1)
        assert drain() == Drained(completed=1)
        events = list(JobEvent.objects.filter(job=job).order_by("id").values_list("state", "at"))
        assert events[-2:] == [("PROCESSING", frozen.now), ("COMPLETED", frozen.now)]


def test_frozen_time__expiry_and_unique_window__end_with_it() -> None:
    with frozen_time(NOON) as frozen:
        enqueue(tell_time, {"n": 1}, expires=30)
        once = Unique("kit", for_s=60)
        first = enqueue(tell_time, {"n": 2}, unique=once)
        frozen.move(30)
        assert drain() == Drained(completed=1, cancelled=1)
        assert enqueue(tell_time, {"n": 3}, unique=once) == first
        frozen.move(30)
        assert enqueue(tell_time, {"n": 4}, unique=once) != first
        debounced = Unique("typed", debounce_s=5)
        for n in (5, 6):
            frozen.move(3)
            enqueue(tell_time, {"n": n}, unique=debounced)
        drain()
        frozen.move(5)
        drain()
    assert SEEN == [2, 4, 6]


def test_frozen_time__rate__lets_go_as_time_moves() -> None:
    queues.find("kit_time")
    queues.configure("kit_time", actor=None, source="system", rate_count=2, rate_period_s=60.0, rate_burst=2)
    with frozen_time(NOON) as frozen:
        enqueue_many(tell_time, [{"n": n} for n in range(5)])
        assert drain() == Drained(completed=2)
        frozen.move(30)
        assert drain() == Drained(completed=1)
        frozen.move(60)
        assert drain() == Drained(completed=2)


def test_frozen_time__lease__ends_when_it_has_passed() -> None:
    with frozen_time(NOON) as frozen:
        job = enqueue(tell_time, {})
        lost = workers.register(pool="threads", concurrency=1, queues=["kit_time"])
        assert ledger.exchange(lost.id, [job.id], [])[0]
        Worker.objects.filter(id=lost.id).update(running=[str(job.id)])
        frozen.move(9.9)
        assert drain() == Drained()
        frozen.move(0.1)
        assert drain() == Drained(completed=1)
        job.refresh_from_db()
        assert job.crash_count == 1


def test_fire_schedules__moments_that_have_come__one_job_each() -> None:
    with frozen_time(NOON) as frozen:
        schedules.create(
            "kit", task="kit.tell_time", cron="0 2 * * *", payload={"n": 1}, actor=None, source="system"
        )
        assert fire_schedules() == []
        frozen.move_to(NOON + timedelta(hours=14))
        (fired,) = fire_schedules()
        assert (fired.outcome, fired.due_at, fired.job) == (
            "fired",
            frozen.now,
            all_enqueued(tell_time)[0].id,
        )
        assert fire_schedules() == []
        frozen.move(timedelta(days=2))
        assert [firing.outcome for firing in fire_schedules()] == ["missed", "fired"] or len(
            all_enqueued()
        ) == 2
        assert drain() == Drained(completed=2)


def test_frozen_time__celery_countdown__counts_from_the_frozen_moment() -> None:
    queues.create_queue("default")
    queues.configure("default", actor=None, source="system", delivery="ledger")
    with frozen_time(NOON) as frozen:
        kit.stock.apply_async([1], countdown=90)
        (job,) = Job.objects.all()
        assert job.run_after == NOON + timedelta(seconds=90)
        frozen.move(90)
        assert drain() == Drained(failed=1)
        frozen.move(45)
        assert drain() == Drained(completed=1)
