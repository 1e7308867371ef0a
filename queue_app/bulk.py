"""Replays of many dead letters: a row that outlives the request, worked off at its rate by the reconciler's leader.

start → row → each look: as many as the rate allows, oldest first, in one transaction with the row → finished

What fails again while a replay runs has a later `finished_at` and is left for people to look at: a replay ends.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from django.db import connection, transaction
from django.db.models import Q, QuerySet

from foundation import audit

from . import clock, deadletter, ledger, pacing, queues, wakeup
from .deadletter import Choice, Refused
from .models import Job, Replay

log = structlog.get_logger(__name__)

LOWEST_RATE, HIGHEST_RATE = 0.001, 100_000.0  # per second


class NothingDead(Refused):
    """No dead letter is among those that were asked for."""


class Ended(Refused):
    """The replay is over already."""


def start(choice: Choice, *, rate: float | None = None, **trace: Any) -> Replay:
    """rate: jobs per second; None: as fast as it goes. trace: as `audit.by`. Raises NothingDead, or ValueError."""
    check_rate(rate)
    with transaction.atomic():
        wanted = deadletter.chosen(choice).count()
        if not wanted:
            raise NothingDead(f"no dead letter {choice.told}")
        now = clock.now()
        actor = "system" if trace["actor"] is None else str(trace["actor"])
        row = Replay.objects.create(
            **choice._asdict(), rate=rate, wanted=wanted, actor=actor[:150], created_at=now, counted_to=now
        )
        asked = {**choice._asdict(), "rate": rate, "wanted": wanted}
        audit.record(action="replay.start", target=row, after=asked, **trace)
    return row


def stop(row_id: UUID, **trace: Any) -> Replay:
    """What it has replayed by now stays replayed. Raises Ended, or Replay.DoesNotExist."""
    with transaction.atomic():
        row = Replay.objects.select_for_update().get(id=row_id)
        if row.finished_at is not None:
            raise Ended(f"replay {row.id} is over already")
        row.is_stopped, row.finished_at = True, clock.now()
        row.save(update_fields=["is_stopped", "finished_at"])
        audit.record(action="replay.stop", target=row, after=_counts(row), **trace)
    return row


def check_rate(rate: float | None) -> None:
    """Raises ValueError."""
    if rate is None:
        return
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not math.isfinite(rate):
        raise ValueError(f"rate = {rate!r} is not a number of jobs per second")
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(f"rate = {rate!r} is not between {LOWEST_RATE} and {HIGHEST_RATE:g} jobs per second")


def work_off(*, look_s: float) -> int:
    """Let go what the rates of the open replays allow now. look_s: seconds between two looks. Returns how many jobs."""
    ids = list(Replay.objects.filter(finished_at=None).order_by("created_at").values_list("id", flat=True))
    return sum(_step(row_id, look_s) for row_id in ids)


def _step(row_id: UUID, look_s: float) -> int:
    with transaction.atomic():
        # Two leaders for a moment share no row: the second leaves it alone.
        row = _unheld().filter(id=row_id, finished_at=None).first()
        if row is None:
            return 0
        now = clock.now()
        allowed = pacing.allowance(row.rate, (now - row.counted_to).total_seconds(), look_s=look_s)
        if not allowed.jobs:
            return 0
        done = _let_go(row, allowed)
        transaction.on_commit(lambda: done.wakeups and wakeup.publish(done.wakeups), robust=True)
    return done.jobs


def _let_go(row: Replay, allowed: pacing.Allowance) -> ledger.Replayed:
    governed = queues.governed()
    done = ledger.replay_batch(_jobs(row), row.position, allowed.jobs, actor=row.actor, governed=governed)
    row.counted_to += timedelta(seconds=allowed.used_s)
    row.replayed += done.jobs
    row.passed_over += done.passed_over
    if done.last is None:
        row.finished_at = clock.now()
        audit.record(actor=row.actor, action="replay.finish", target=row, after=_counts(row), source="system")
        log.info("replay_finished", replay=str(row.id), **_counts(row))
    else:
        row.position = done.last
    row.save(update_fields=["counted_to", "replayed", "passed_over", "finished_at", "position"])
    return done


def _jobs(row: Replay) -> QuerySet[Job]:
    was_dead = Q(finished_at=None) | Q(finished_at__lte=row.created_at)
    return deadletter.chosen(Choice(row.queue, row.task, row.fingerprint)).filter(was_dead)


def _unheld() -> QuerySet[Replay]:
    return Replay.objects.select_for_update(skip_locked=connection.features.has_select_for_update_skip_locked)


def _counts(row: Replay) -> dict[str, int]:
    return {"wanted": row.wanted, "replayed": row.replayed, "passed_over": row.passed_over}
