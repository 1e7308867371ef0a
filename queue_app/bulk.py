"""One action on many jobs: a row that outlives the request, worked off at its rate by the reconciler's leader.

start → row → each look: the next jobs by their ids, as many as the rate allows, in one transaction with the row → finished

Each job is met once, and none that is enqueued after the start. What fails again while a replay runs has a later
`finished_at` and is left for people to look at: a bulk action ends.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from django.db import connection, transaction
from django.db.models import Q, QuerySet

from foundation import audit

from . import (
    cancelling,
    clock,
    conditions,
    finding,
    interventions,
    pacing,
    policies,
    releasing,
    selection,
    states,
    wakeup,
)
from .clock import Clock
from .interventions import Done
from .models import BulkAction, Delivery, Job
from .selection import Selection
from .states import Bulk

log = structlog.get_logger(__name__)

LOWEST_RATE, HIGHEST_RATE = 0.001, 100_000.0  # per second
_LOOK_S = 0.5  # of an action without a rate: as many batches as this time takes
_TICK = timedelta(milliseconds=1)  # how far SQLite's clock may be ahead of `clock.now`
_SEARCHED = 5_000  # jobs whose arguments are looked at in one batch


class NothingToDo(ValueError):
    """No job of those that were asked for is in a state for it."""


class Ended(ValueError):
    """The bulk action is over already."""


def start(
    action: str, wanted: Selection, *, rate: float | None = None, force: bool = False, **trace: Any
) -> BulkAction:
    """rate: jobs per second; None: as fast as it goes. force: of a cancel. trace: as `audit.by`.

    Raises NothingToDo, or ValueError.
    """
    what = Bulk(action)
    check_rate(rate)
    if force and what != Bulk.CANCEL:
        raise ValueError("force goes with cancel alone")
    with transaction.atomic():
        now = clock.now()
        count = _candidates(what, wanted, now).count()
        if not count:
            raise NothingToDo(f"nothing to {what}: {wanted.told}")
        actor = "system" if trace["actor"] is None else str(trace["actor"])
        row = BulkAction.objects.create(
            action=what.value,
            selection=wanted.as_texts(),
            rate=rate,
            is_forced=force,
            wanted=count,
            actor=actor[:150],
            created_at=now,
            counted_to=now,
        )
        asked = {"selection": row.selection, "rate": rate, "force": force, "wanted": count}
        audit.record(action=f"bulk.{what}", target=row, after=asked, **trace)
    return row


def stop(row_id: UUID, **trace: Any) -> BulkAction:
    """What it has done by now stays done. Raises Ended, or BulkAction.DoesNotExist."""
    with transaction.atomic():
        row = BulkAction.objects.select_for_update().get(id=row_id)
        if row.finished_at is not None:
            raise Ended(f"bulk action {row.id} is over already")
        row.is_stopped, row.finished_at = True, clock.now()
        row.save(update_fields=["is_stopped", "finished_at"])
        audit.record(action="bulk.stop", target=row, after=_counts(row), **trace)
    return row


def count(action: str, wanted: Selection) -> int:
    """How many jobs it would look at if it were started now."""
    return _candidates(Bulk(action), wanted, clock.now()).count()


def doable(action: str, ids: Collection[UUID]) -> set[UUID]:
    """Those of these jobs that are in a state for it."""
    found = _candidates(Bulk(action), Selection(), clock.now()).filter(id__in=ids)
    return {*found.values_list("id", flat=True)}


def check_rate(rate: float | None) -> None:
    """Raises ValueError."""
    if rate is None:
        return
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not math.isfinite(rate):
        raise ValueError(f"rate = {rate!r} is not a number of jobs per second")
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(f"rate = {rate!r} is not between {LOWEST_RATE} and {HIGHEST_RATE:g} jobs per second")


def work_off(*, look_s: float) -> int:
    """Do what the rates of the open bulk actions allow now. look_s: seconds between two looks. Returns how many jobs."""
    ids = list(
        BulkAction.objects.filter(finished_at=None).order_by("created_at").values_list("id", flat=True)
    )
    return sum(_look(row_id, look_s) for row_id in ids)


def work_off_one(row_id: UUID) -> int:
    """The same for one that has no rate, in the caller's process."""
    return _look(row_id, _LOOK_S)


def prune(older_than_s: float) -> int:
    """Delete the rows of bulk actions that ended this long ago. Returns how many."""
    over = BulkAction.objects.filter(finished_at__lt=clock.now() - timedelta(seconds=older_than_s))
    return over.delete()[0]


# --- one look --------------------------------------------------------------------------------------------------------
def _look(row_id: UUID, look_s: float) -> int:
    began, jobs = time.monotonic(), 0
    while True:
        done, goes_on = _step(row_id, look_s)
        jobs += done
        if not goes_on or time.monotonic() - began > _LOOK_S:
            return jobs


def _step(row_id: UUID, look_s: float) -> tuple[int, bool]:
    """How many jobs, and whether there is more to do at once."""
    with transaction.atomic():
        # Two leaders for a moment share no row: the second leaves it alone.
        row = _unheld().filter(id=row_id, finished_at=None).first()
        if row is None:
            return 0, False
        now = clock.now()
        allowed = pacing.allowance(row.rate, (now - row.counted_to).total_seconds(), look_s=look_s)
        if not allowed.jobs:
            return 0, False
        part = _next(row, allowed.jobs)
        _lock_workflows(part.ids)
        done = _ACTIONS[Bulk(row.action)](part.ids, row) if part.ids else Done(0)
        _note(row, part, done, allowed)
        transaction.on_commit(lambda: done.wakeups and wakeup.publish(done.wakeups), robust=True)
    # Jobs that were looked at and not meant use up nothing of the rate.
    return done.jobs, row.finished_at is None and (row.rate is None or not part.ids)


class _Part(NamedTuple):
    """ids: of jobs that are meant. last: how far was looked; None: there are no more."""

    ids: list[UUID]
    seen: int
    last: UUID | None


def _next(row: BulkAction, most: int) -> _Part:
    wanted = _selection(row)
    ahead = _candidates(Bulk(row.action), wanted, row.created_at).order_by("id")
    if row.position is not None:
        ahead = ahead.filter(id__gt=row.position)
    if not wanted.arguments:
        ids = list(ahead.values_list("id", flat=True)[:most])
        return _Part(ids, len(ids), ids[-1] if ids else None)
    looked = list(ahead.values_list("id", flat=True)[:_SEARCHED])
    meant = finding.matching(Job.objects.filter(id__in=looked), wanted).order_by("id")
    ids = list(meant.values_list("id", flat=True)[:most])
    if len(ids) == most:
        return _Part(ids, looked.index(ids[-1]) + 1, ids[-1])
    return _Part(ids, len(looked), looked[-1] if looked else None)


def _note(row: BulkAction, part: _Part, done: Done, allowed: pacing.Allowance) -> None:
    if part.ids or row.rate is None:
        row.counted_to += timedelta(seconds=allowed.used_s)
    row.seen += part.seen
    row.done += done.jobs
    row.passed_over += len(part.ids) - done.jobs
    if part.last is None:
        row.finished_at = clock.now()
        audit.record(actor=row.actor, action="bulk.finish", target=row, after=_counts(row), source="system")
        log.info("bulk_action_finished", bulk_action=str(row.id), action=row.action, **_counts(row))
    else:
        row.position = part.last
    row.save(update_fields=["counted_to", "seen", "done", "passed_over", "finished_at", "position"])


def _lock_workflows(ids: Collection[UUID]) -> None:
    """Before the jobs' own rows, in the order that everybody keeps."""
    flows = Job.objects.filter(id__in=ids, workflow__isnull=False).values_list("workflow", flat=True)
    releasing.lock({flow for flow in flows.distinct() if flow is not None})


# --- what it does ----------------------------------------------------------------------------------------------------
def _replay(ids: Collection[UUID], row: BulkAction) -> Done:
    return interventions.replay_many(ids, actor=row.actor, governed=policies.governed_now())


def _run(ids: Collection[UUID], row: BulkAction) -> Done:
    return interventions.run_many(ids, actor=row.actor, governed=policies.governed_now())


def _discard(ids: Collection[UUID], row: BulkAction) -> Done:
    return interventions.discard_many(ids, actor=row.actor)


def _cancel(ids: Collection[UUID], row: BulkAction) -> Done:
    cancelled, asked = interventions.cancel_many(ids, actor=row.actor, force=row.is_forced)
    revoked = 0
    for job in Job.objects.filter(id__in=ids, delivery=Delivery.BROKER).exclude(state__in=states.OVER):
        cancelling.revoke(job, force=row.is_forced)
        revoked += 1
    return Done(cancelled + asked + revoked)


_ACTIONS: dict[Bulk, Callable[[Collection[UUID], BulkAction], Done]] = {
    Bulk.REPLAY: _replay,
    Bulk.DISCARD: _discard,
    Bulk.CANCEL: _cancel,
    Bulk.RUN: _run,
}


def _candidates(action: Bulk, wanted: Selection, began: Any) -> QuerySet[Job]:
    """The jobs in a state for it, the condition on their arguments left out. began: later ones are not meant."""
    began += _TICK  # a job that was made just before may be stamped so much later
    found = finding.indexed(wanted).filter(id__lte=finding.newest_until(began + timedelta(seconds=2)))
    found = found.filter(created_at__lte=began)
    if action in (Bulk.REPLAY, Bulk.DISCARD):
        return found.filter(conditions.DEAD).filter(Q(finished_at=None) | Q(finished_at__lte=began))
    if action == Bulk.RUN:
        return found.filter(conditions.WAITS, run_after__gt=Clock(), run_after__lt=states.NEVER)
    return found.filter(conditions.OPEN)


def _selection(row: BulkAction) -> Selection:
    return selection.read(row.selection, row.created_at)


def _unheld() -> QuerySet[BulkAction]:
    return BulkAction.objects.select_for_update(
        skip_locked=connection.features.has_select_for_update_skip_locked
    )


def _counts(row: BulkAction) -> dict[str, int]:
    return {name: getattr(row, name) for name in ("wanted", "seen", "done", "passed_over")}
