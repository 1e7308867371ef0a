"""The worker's row and its lease: while a worker beats, what it holds is its own; when it falls silent, it is not."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from .conf import conf
from .ledger import Clock
from .models import Job, Worker
from .uuid7 import uuid7


def register(*, pool: str, concurrency: int, queues: list[str]) -> Worker:
    """Make the row of this worker process with a first lease, and drop the rows of workers that are long gone."""
    gone = Clock() - timedelta(seconds=conf().WORKER_RETENTION_S)
    now = timezone.now()
    with transaction.atomic():
        Worker.objects.filter(lease_until__lt=gone).delete()
        return Worker.objects.create(
            id=uuid7(),
            host=socket.gethostname(),
            pid=os.getpid(),
            pool=pool,
            concurrency=concurrency,
            queues=sorted(queues),
            started_at=now,
            last_seen_at=now,
            lease_until=Clock() + _lease(),
        )


def beat(worker_id: UUID, queues: list[str], running: Collection[UUID], *, stuck: int = 0) -> bool:
    """Extend the lease and say what runs. stuck: threads that do not come back. False when it has ended: the worker must register anew.

    A lease that has ended is not taken up again. Others may have been given the jobs, and those that they were not given
    yet go the way of every lost worker's.
    """
    mine = Worker.objects.filter(id=worker_id, lease_until__gt=Clock())
    return bool(
        mine.update(
            last_seen_at=Clock(),
            lease_until=Clock() + _lease(),
            queues=sorted(queues),
            running=[str(id) for id in running],
            stuck=stuck,
        )
    )


def cancelled(held: Collection[UUID]) -> dict[UUID, bool]:
    """Those of a worker's jobs that somebody wants to stop, and whether by force."""
    asked = Job.objects.filter(id__in=held, cancel_requested=True)
    return dict(asked.values_list("id", "cancel_forced"))


def leave(worker_id: UUID) -> None:
    """The worker ends, and not by a job's fault: whatever it still holds goes back at once, and is charged with nothing."""
    Worker.objects.filter(id=worker_id).update(stopped_at=Clock(), lease_until=Clock(), running=[])


def living() -> QuerySet[Worker]:
    """The workers that hold a lease, newest first."""
    return Worker.objects.filter(lease_until__gt=Clock())


def alive() -> int:
    """How many workers hold a lease."""
    return living().count()


def _lease() -> timedelta:
    return timedelta(seconds=conf().LEASE_S)
