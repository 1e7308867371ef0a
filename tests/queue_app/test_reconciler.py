"""One worker of many reconciles; the others take over when it stops or dies."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from django.utils import timezone

from queue_app import enqueue, ledger, workers
from queue_app.conf import conf
from queue_app.models import Job, Lease
from queue_app.reconciler import NAME, Reconciler

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
    return not any(wakeup.id == job.id for wakeup in ledger.due())


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
