"""Of which jobs the broker is told, as far as the rows say it: what is due, what was told and lost, what waits for a turn.

a waiting job → due | stale | overtaken → its row counts as published → Wakeup → wakeup.publish, after the commit
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db import transaction
from django.db.models import F, Max, Q, QuerySet
from django.db.models.functions import Least

from . import states
from .clock import Clock
from .conditions import RUNS, is_due, locked, waiting
from .models import Job, JobEvent
from .states import Turn

BATCH = 500  # rows a look of the reconciler takes at most, so that no transaction gets long

# A waiting job whose time has come: its message goes out at once, or when it has its turn. Who lets it go sets `run_after`
# to then: by it a queue's latency counts, and one that was made long ago has not waited since.
TOLD: dict[str, Any] = {"published_at": Clock(), "turn": int(Turn.NONE)}
IN_LINE: dict[str, Any] = {"published_at": None, "turn": int(Turn.WAITS)}

# Beside every `published_at=None`: a job that comes back has given up its turn, and one without limits has none.
NO_TURN = Least(F("turn"), int(Turn.LATER))


class Wakeup(NamedTuple):
    """What the broker has to know about a job."""

    id: UUID
    queue: str
    priority: int


def due(governed: Collection[str] = ()) -> list[Wakeup]:
    """Jobs whose time has come and that the broker has not been told about; from now on they count as published.

    Those of queues with limits (`governed`) wait for their turn from now on, and are not among them.
    """
    return _mark_published(waiting().filter(is_due(), published_at=None), governed)


def stale_queues(older_than_s: float) -> list[str]:
    """Queues with jobs that were published this long ago and still wait: busy queues, or ones that lost messages."""
    return list(_stale(older_than_s).order_by("queue").values_list("queue", flat=True).distinct())


def stale(queue: str, older_than_s: float, governed: Collection[str] = ()) -> list[Wakeup]:
    """The waiting jobs of a queue whose messages were lost; from now on they count as published again. As `due`."""
    return _mark_published(_stale(older_than_s).filter(queue=queue), governed)


def overtaken(queue: str, slack_s: float, governed: Collection[str] = ()) -> list[Wakeup]:
    """Waiting jobs whose class is long past them: jobs published `slack_s` later are being run, so their messages are lost.

    The watermark of a busy queue, whose broker queue is never empty. From now on they count as published again. As `due`.
    """
    running = Job.objects.filter(RUNS, queue=queue, published_at__lte=Clock()).order_by()
    newest = dict(running.values_list("priority").annotate(Max("published_at")))
    # The watermarks first: compared row by row with what runs, 10,000 waiting jobs cost SQLite 6 s under its write lock.
    passed = Q()
    for priority, published_at in newest.items():
        passed |= Q(priority=priority, published_at__lt=published_at - timedelta(seconds=slack_s))
    return _mark_published(waiting().filter(passed, is_due(), queue=queue), governed) if newest else []


def age(older_than_s: float) -> list[Wakeup]:
    """Raise jobs that have waited this long by one class, and publish them there: no class starves for ever."""
    since = Clock() - timedelta(seconds=older_than_s)
    old = waiting().filter(is_due(), published_at__lt=since, priority__lt=states.Priority.CRITICAL)
    if not old.exists():
        return []
    with transaction.atomic():
        found = list(locked(old.order_by("id"))[:BATCH])
        for job in found:
            job.priority = min(states.HIGHEST, states.priority_class(job.priority) + 3)
        ids = [job.id for job in found]
        for step in {job.priority for job in found}:
            Job.objects.filter(id__in=[job.id for job in found if job.priority == step]).update(priority=step)
        Job.objects.filter(id__in=ids).update(published_at=Clock())
        JobEvent.objects.bulk_create(
            JobEvent(job_id=job.id, state=job.state, detail={"action": "aged", "priority": job.priority})
            for job in found
        )
    return [Wakeup(job.id, job.queue, job.priority) for job in found]


def unpublish(ids: Collection[UUID]) -> None:
    """The broker could not be told after all: the reconciler does it when it can."""
    waiting().filter(id__in=ids).update(published_at=None, turn=NO_TURN)


def _stale(older_than_s: float) -> QuerySet[Job]:
    age = timedelta(seconds=older_than_s)
    # One that is still to come was written by a caller whose clock is wrong: its message may be lost as any other's.
    told = Q(published_at__lt=Clock() - age) | Q(published_at__gt=Clock() + age)
    return waiting().filter(told, is_due())


def _mark_published(jobs: QuerySet[Job], governed: Collection[str]) -> list[Wakeup]:
    if not jobs.exists():  # SQLite's transactions are IMMEDIATE: an idle look must not take the write lock
        return []
    with transaction.atomic():
        first = list(locked(jobs).order_by("-priority", "id").only("id", "queue", "priority", "turn")[:BATCH])
        in_line = [job.id for job in first if job.queue in governed and job.turn != Turn.HAS]
        told = [job for job in first if job.queue not in governed or job.turn == Turn.HAS]
        Job.objects.filter(id__in=[job.id for job in told]).update(published_at=Clock())
        # A queue that has no limits any more: what had to wait for its turn needs none.
        free = [job.id for job in told if job.turn == Turn.LATER]
        if free:
            Job.objects.filter(id__in=free).update(turn=int(Turn.NONE))
        if in_line:
            Job.objects.filter(id__in=in_line).update(**IN_LINE)
    return [Wakeup(job.id, job.queue, job.priority) for job in told]
