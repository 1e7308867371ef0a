"""Faults in drains and eager runs, on every database and inside a test's transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.db.utils import ConnectionDoesNotExist
from kombu.exceptions import KombuError

from queue_app import enqueue, policies, task
from queue_app.models import Job, JobEvent, Queue
from queue_app.registry import UnknownTask
from queue_app.runs import Run
from queue_app.testing import (
    Drained,
    broker_down,
    crash,
    database_down,
    deliver_twice,
    drain,
    eager,
    fail,
    lost_lease,
    no_broker,
    perform,
    publish_due,
)
from tests.queue_app.testing import test_draining as kit

pytestmark = pytest.mark.usefixtures("every_database", "_around")

SEEN: list[Any] = []


@pytest.fixture(params=["in a transaction", "autocommit"])
def _around(request: pytest.FixtureRequest, every_database: None) -> Iterator[None]:
    SEEN.clear()
    with no_broker(), transaction.atomic() if request.param == "in a transaction" else nullcontext():
        yield
    policies.forget()


@task(queue="kit_faults", name="kit.pay", max_retries=2)
def pay(payload: dict[str, Any], job: Run) -> str:
    SEEN.append(payload.get("n"))
    if payload.get("atomic"):
        with job.atomic("booked"):
            Queue.objects.create(name="kit_paid")
    return "paid"


def told(job: Job) -> list[tuple[str, Any]]:
    events = JobEvent.objects.filter(job=job).order_by("id").values_list("state", "detail")
    return [(state, detail.get("reason") or detail.get("error")) for state, detail in events]


def test_fail__so_many_times__then_the_handler_runs() -> None:
    job, other = enqueue(pay, {"n": 1}), enqueue(pay, {"n": 2})
    with fail(job, ConnectionError("refused"), times=2):
        assert drain(with_retries=True) == Drained(completed=2, failed=2)
    job.refresh_from_db()
    other.refresh_from_db()
    assert (job.state, job.attempt, job.last_error["message"]) == ("COMPLETED", 3, "refused")
    assert (other.attempt, sorted(SEEN)) == (1, [1, 2])
    assert told(job)[1:3] == [("PROCESSING", None), ("FAILED", "ConnectionError")]


def test_fail__for_the_block__of_a_task_or_a_celery_task() -> None:
    with fail(pay, PermissionError), fail("kit.stock", OSError("no")):
        assert perform(pay, {}, attempt=3).state == "DEAD_LETTER"
        assert perform(kit.stock, {"args": [1]}).state == "DEAD_LETTER"
    assert perform(pay, {}).state == "COMPLETED"
    with pytest.raises(UnknownTask), fail("kit.nobody", OSError):
        pass
    with pytest.raises(ValueError, match="times = -1"), fail(pay, OSError, times=-1):
        pass


def test_crash__every_run__charges_each_and_ends_in_the_dead_letters() -> None:
    job, other = enqueue(pay, {"n": 1}), enqueue(pay, {"n": 2})
    with crash(job):
        assert drain() == Drained(completed=1, crashed=3)
    job.refresh_from_db()
    other.refresh_from_db()
    assert (job.state, job.crash_count, job.attempt, job.last_error["type"]) == (
        "DEAD_LETTER",
        3,
        0,
        "WorkerLost",
    )
    assert (other.crash_count, SEEN) == (0, [2])
    assert told(job) == [
        ("PENDING", None),
        ("PROCESSING", None),
        ("PENDING", "worker lost"),
        ("PROCESSING", None),
        ("PENDING", "worker lost"),
        ("PROCESSING", None),
        ("DEAD_LETTER", "worker lost"),
    ]


def test_crash__at_the_end__the_work_is_done_twice_unless_it_is_atomic() -> None:
    job = enqueue(pay, {"n": 1})
    with crash(pay, at="end", times=1):
        assert drain() == Drained(completed=1, crashed=1)
    job.refresh_from_db()
    assert (SEEN, job.crash_count, job.state) == ([1, 1], 1, "COMPLETED")
    atomic = enqueue(pay, {"n": 2, "atomic": True})
    with crash(pay, at="end"):
        assert drain() == Drained(completed=1)
    atomic.refresh_from_db()
    assert (atomic.state, atomic.result, atomic.crash_count) == ("COMPLETED", "booked", 0)
    with pytest.raises(ValueError, match="neither 'start' nor 'end'"), crash(at="middle"):  # type: ignore[arg-type]
        pass


def test_lost_lease__end_is_refused_and_the_job_runs_again() -> None:
    job = enqueue(pay, {"n": 1})
    with lost_lease(pay, times=1):
        assert drain() == Drained(completed=1, refused=1)
    job.refresh_from_db()
    assert (SEEN, job.fence, job.crash_count, job.attempt) == ([1, 1], 2, 1, 1)
    atomic = enqueue(pay, {"n": 2, "atomic": True})
    with lost_lease(atomic, times=1):
        assert drain() == Drained(completed=1, refused=1)  # twice would meet the name that is taken
    assert Queue.objects.filter(name="kit_paid").count() == 1


def test_deliver_twice__one_run() -> None:
    job = enqueue(pay, {"n": 1})
    with deliver_twice() as deliveries:
        assert drain() == Drained(completed=1)
    assert (deliveries.messages, deliveries.runs, SEEN) == (1, [], [1])
    assert [state for state, _ in told(job)] == ["PENDING", "PROCESSING", "COMPLETED"]


def test_faults__eager_run__meets_them() -> None:
    if connection.in_atomic_block:
        return
    with eager(), crash(pay, times=1):
        job = enqueue(pay, {"n": 1})
    job.refresh_from_db()
    assert (job.state, job.crash_count, job.suspect) == ("PENDING", 1, True)
    assert drain() == Drained(completed=1)


def test_broker_down__row_is_kept_and_published_later() -> None:
    if connection.in_atomic_block:
        return  # nothing commits
    with broker_down():
        job = enqueue(pay, {"n": 1})
        assert publish_due() == 0
        job.refresh_from_db()
        assert (job.state, job.published_at) == ("PENDING", None)
        with pytest.raises((KombuError, OSError)):
            kit.stock.delay(1)
    with no_broker() as published:
        assert publish_due() == 1
        assert publish_due() == 0
    assert [one.id for one in published.wakeups] == [job.id]


def test_database_down__statements_after_the_first_ones__raise_as_the_driver_does() -> None:
    with database_down(after=1) as outage:
        assert Job.objects.count() == 0
        with pytest.raises(OperationalError) as caught:
            enqueue(pay, {})
        with pytest.raises(OperationalError):
            Job.objects.count()
    assert isinstance(caught.value.__cause__, connection.Database.OperationalError)
    assert outage.refused >= 2
    assert Job.objects.count() == 0
    assert perform(pay, {}).state == "COMPLETED"
    with pytest.raises(ConnectionDoesNotExist), database_down("nowhere"):
        pass
    with pytest.raises(ValueError, match="after = -1"), database_down(after=-1):
        pass
