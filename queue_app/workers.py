"""The worker's row and its lease: while a worker beats, what it holds is its own; when it falls silent, it is not.

The row is also where a worker is asked to be quiet, to stop or to start anew: every broker and every host reads it, and it
outlasts a worker that is busy or away for the moment.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from foundation import audit

from .clock import Clock
from .conf import conf
from .models import Job, Worker
from .states import Asked
from .uuid7 import uuid7


class Refused(ValueError):
    """The worker cannot be asked for that."""


def register(*, pool: str, concurrency: int, queues: list[str], asked: str = "") -> Worker:
    """Make the row of this worker process with a first lease, and drop the rows of workers that are long gone.

    asked: of the row that this one follows, when its lease has lapsed.
    """
    gone = Clock() - timedelta(seconds=conf().WORKER_RETENTION_S)
    now = timezone.now()
    with transaction.atomic():
        Worker.objects.filter(lease_until__lt=gone).delete()
        return Worker.objects.create(
            id=uuid7(),
            host=socket.gethostname(),
            pid=os.getpid(),
            version=conf().VERSION[:64],
            pool=pool,
            concurrency=concurrency,
            queues=sorted(queues),
            asked=asked,
            started_at=now,
            last_seen_at=now,
            lease_until=Clock() + _lease(),
        )


def beat(
    worker_id: UUID,
    queues: list[str],
    running: Collection[UUID],
    *,
    stuck: int = 0,
    memory_bytes: int | None = None,
    ended: int = 0,
) -> bool:
    """Extend the lease and say how it stands. False when it has ended: the worker must register anew.

    stuck: threads that do not come back. ended: runs since the process began.

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
            memory_bytes=memory_bytes,
            ended=ended,
        )
    )


def heard(worker_id: UUID) -> str:
    """What the worker is asked for."""
    return Worker.objects.filter(id=worker_id).values_list("asked", flat=True).first() or ""


def ask(
    worker: Worker,
    what: str,
    *,
    actor: Any,
    source: str,
    request_id: str | None = None,
    ip: str | None = None,
) -> Worker:
    """Ask a worker for one of `Asked`; "" lets a quiet one take jobs again. It hears of it within LEASE_S / 3.

    Raises ValueError for another word; Refused when the worker is not alive, or ends already.
    """
    wanted = Asked(what)
    with transaction.atomic():
        found = living().select_for_update().filter(id=worker.id).first()
        if found is None:
            raise Refused(f"worker {worker} is not alive")
        if found.asked in (Asked.STOP, Asked.RECYCLE) and found.asked != wanted:
            raise Refused(f"worker {worker} was asked to {found.asked}, which cannot be taken back")
        Worker.objects.filter(id=worker.id).update(asked=wanted)
        audit.record(
            actor=actor,
            action="worker.ask",
            target=found,
            before={"asked": found.asked},
            after={"asked": str(wanted)},
            source=source,
            request_id=request_id,
            ip=ip,
        )
        found.asked = wanted
    return found


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


def slots() -> dict[str, int]:
    """By queue: how many jobs the workers that consume it can run at once. Those that were asked to end do not count."""
    found: dict[str, int] = {}
    for queues, concurrency in living().filter(asked=Asked.NOTHING).values_list("queues", "concurrency"):
        for queue in queues:
            found[queue] = found.get(queue, 0) + concurrency
    return found


def alive() -> int:
    """How many workers hold a lease."""
    return living().count()


def _lease() -> timedelta:
    return timedelta(seconds=conf().LEASE_S)
