"""One worker of many reconciles; the others take over when it stops or dies."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from django.utils import timezone

from queue_app import enqueue, enqueue_many, finding, publication, retention, workers
from queue_app import reconciler as reconciling
from queue_app.conf import conf
from queue_app.models import Job, JobEvent, Lease
from queue_app.reconciler import NAME, Pruning, Reconciler
from queue_app.states import State

pytestmark = pytest.mark.django_db(transaction=True)


def reconciler() -> Reconciler:
    """Of a worker of its own, which runs nothing."""
    worker = workers.register(pool="threads", concurrency=1, queues=[])
    return Reconciler(cast(Any, SimpleNamespace(worker_id=worker.id, held=set[UUID]())))


@pytest.fixture
def due(own_queue: str) -> Job:
    """A job that waits for its time, which has come."""
    job = enqueue(own_queue, {}, delay=60)
    Job.objects.filter(id=job.id).update(run_after=timezone.now())
    return job


def is_published(job: Job) -> bool:
    return not any(wakeup.id == job.id for wakeup in publication.due())


def test_look__another_worker_leads__leaves_it_to_that_one(due: Job) -> None:
    leader, other = reconciler(), reconciler()
    assert leader._leadership.holds()
    assert other.look() == conf().LEASE_S / 3
    assert not is_published(due)
    assert leader.look() == conf().RECONCILE_S
    assert is_published(due)


def test_look__leader_has_stopped__the_next_one_leads_at_once(due: Job) -> None:
    leader, other = reconciler(), reconciler()
    assert leader._leadership.holds()
    leader.stop()
    assert other.look() == conf().RECONCILE_S
    assert is_published(due)


def test_look__leader_was_killed__the_next_one_leads_when_its_lease_is_over(due: Job) -> None:
    leader, other = reconciler(), reconciler()
    assert leader._leadership.holds()
    Lease.objects.filter(name=NAME).update(
        until=timezone.now() - timedelta(seconds=1)
    )  # SQLite counts milliseconds
    assert other.look() == conf().RECONCILE_S
    assert is_published(due)


# --- retention -------------------------------------------------------------------------------------------------------
def over(queue: str, count: int = 1) -> list[UUID]:
    """Jobs that were made now and ended 100 days ago."""
    ids = [job.id for job in enqueue_many(queue, [{}] * count)]
    ended = timezone.now() - timedelta(days=100)
    Job.objects.filter(id__in=ids).update(state=State.COMPLETED, finished_at=ended)
    return ids


def test_prune__more_than_a_batch__all_go_in_one_round(
    own_queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch each half minute was 17 jobs a second: with more work than that the table grew for ever."""
    monkeypatch.setattr(retention, "BATCH", 2)
    over(own_queue, 5)
    kept = enqueue(own_queue, {})
    Pruning(0, is_thorough=True).go_on()
    assert [job.id for job in Job.objects.filter(queue=own_queue)] == [kept.id]


def test_prune__takes_long__the_next_look_goes_on_with_the_other_queues(
    own_queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    over(own_queue)
    monkeypatch.setattr(reconciling, "_PRUNE_LOOK_S", -1.0)
    pruning = Pruning(0, is_thorough=True)
    assert not pruning.go_on()
    assert Job.objects.filter(queue=own_queue).exists()
    monkeypatch.setattr(reconciling, "_PRUNE_LOOK_S", 10.0)
    assert pruning.go_on()
    assert not Job.objects.filter(queue=own_queue).exists()


def test_prune__by_the_ids__younger_ones_are_looked_at_when_it_is_thorough(own_queue: str) -> None:
    """What is over is not read as a whole each time to find that nothing of it is old."""
    young, old = over(own_queue, 2)
    JobEvent.objects.filter(job=old).delete()
    Job.objects.filter(id=old).update(id=finding.newest_until(timezone.now() - timedelta(days=101)))
    assert Pruning(0, is_thorough=False).go_on()
    assert [job.id for job in Job.objects.filter(queue=own_queue)] == [young]
    assert Pruning(0, is_thorough=True).go_on()
    assert not Job.objects.filter(queue=own_queue).exists()
