"""The worker's row and its lease: while a worker beats, what it holds is its own; when it falls silent, it is not."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from .conf import conf
from .ledger import Clock
from .models import Worker
from .uuid7 import uuid7

_current: UUID | None = None


def announce() -> UUID:
    """Choose the id of this worker process, before its pool forks: the children claim in the name of their parent."""
    global _current
    _current = uuid7()
    return _current


def current() -> UUID | None:
    """The worker that this process runs jobs for: itself, or the parent of a pool's child."""
    global _current
    if _current is None:  # a spawned child has inherited nothing
        parent = Worker.objects.filter(host=socket.gethostname(), pid=os.getppid(), lease_until__gt=Clock())
        _current = parent.values_list("id", flat=True).first()
    return _current


def register(worker_id: UUID, *, pool: str, concurrency: int, queues: list[str]) -> Worker:
    """Make the worker's row with a first lease, and drop the rows of workers that are long gone."""
    gone = Clock() - timedelta(seconds=conf().WORKER_RETENTION_S)
    now = timezone.now()
    with transaction.atomic():
        Worker.objects.filter(lease_until__lt=gone).delete()
        return Worker.objects.create(
            id=worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            pool=pool,
            concurrency=concurrency,
            queues=sorted(queues),
            started_at=now,
            last_seen_at=now,
            lease_until=Clock() + _lease(),
        )


def beat(worker_id: UUID, queues: list[str]) -> bool:
    """Extend the lease. False when the row is gone, and the worker has to register again.

    A lease that had ended may be taken up again under the same id: jobs that were given to others meanwhile are lost to
    this worker by their state and fence, whoever asks.
    """
    mine = Worker.objects.filter(id=worker_id)
    return bool(
        mine.update(
            last_seen_at=Clock(), lease_until=Clock() + _lease(), queues=sorted(queues), stopped_at=None
        )
    )


def leave(worker_id: UUID) -> None:
    """The worker ended in order. Whatever it still held, after a cold shutdown, goes back at once."""
    Worker.objects.filter(id=worker_id).update(stopped_at=Clock(), lease_until=Clock())


def alive() -> int:
    """How many workers hold a lease."""
    return Worker.objects.filter(lease_until__gt=Clock()).count()


def _lease() -> timedelta:
    return timedelta(seconds=conf().LEASE_S)
