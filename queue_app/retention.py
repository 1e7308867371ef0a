"""What is over is deleted in the end: jobs that ended long ago, with all that belongs to them, and their workflows."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from .clock import Clock
from .composition import Kind
from .conditions import locked
from .models import Blob, Job, JobEvent, Member, Tag, Workflow
from .states import State

BATCH = 500  # rows a look deletes at most, so that no transaction gets long


def prune_jobs(queue: str, state: State, older_than_s: float, *, upto: UUID | None = None) -> int:
    """Delete the queue's jobs that ended in `state` this long ago, BATCH of them at most. Returns how many.

    upto: of the ids up to there alone, by which an index leads to old jobs; without it all that are over are looked at.
    """
    since = Clock() - timedelta(seconds=older_than_s)
    # A unique key's window is kept by its row.
    is_free = Q(unique_key=None) | Q(unique_until=None) | Q(unique_until__lte=Clock())
    # Results of a workflow's jobs are wanted, and its dead letters hold it up, as long as it is not over.
    is_wanted = Q(Exists(Workflow.objects.filter(id=OuterRef("workflow"), finished_at=None)))
    if state != State.DEAD_LETTER:
        is_wanted |= Q(_is_called_back())
    over = Job.objects.filter(is_free, ~is_wanted, queue=queue, state=state, finished_at__lt=since)
    over = over if upto is None else over.filter(id__lte=upto)
    old = list(over.order_by("id").values_list("id", flat=True)[:BATCH])
    if not old:
        return 0
    with transaction.atomic():
        # Once more and locked: one that has been replayed meanwhile is to run.
        still = locked(Job.objects.filter(id__in=old, state=state, finished_at__lt=since))
        ids = list(still.order_by("id").values_list("id", flat=True))
        if ids:
            JobEvent.objects.filter(job_id__in=ids).delete()
            Blob.objects.filter(job_id__in=ids).delete()
            Tag.objects.filter(job_id__in=ids).delete()
            Member.objects.filter(job__in=ids).delete()
            Job.objects.filter(id__in=ids).delete()
    return len(ids)


def prune_workflows(older_than_s: float) -> int:
    """Delete workflows that were over this long ago and of whose jobs none is left, a bounded number of them."""
    since = Clock() - timedelta(seconds=older_than_s)
    has_jobs = Exists(Member.objects.filter(workflow=OuterRef("id")))
    gone = Workflow.objects.filter(~has_jobs, finished_at__lt=since).order_by("id")
    ids = list(gone.values_list("id", flat=True)[:BATCH])
    if ids:
        Workflow.objects.filter(id__in=ids).delete()
    return len(ids)


def _is_called_back() -> Exists:
    """Its batch is over and has a callback that is still to read the results, a dead one's replay included."""
    open_ = ["", str(State.DEAD_LETTER)]
    waits = Member.objects.filter(workflow=OuterRef("id"), opens=None, outcome__in=open_).exclude(role="")
    # By the batches, which are few: else PostgreSQL looks through the places of all jobs of all workflows.
    return Exists(Workflow.objects.filter(Exists(waits), id=OuterRef("workflow"), kind=Kind.BATCH.value))
