"""Firing: due schedules → locked rows → jobs and firings in one transaction → the next moment.

Any number of schedulers may do this at once: each takes rows that no other holds, and (schedule, due_at) is unique. One of
the workers leads by a lease, so that the others need not look; `celery beat` looks besides them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog
from django.db import OperationalError, connection, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet, Subquery

from . import cancelling, clock, intake, leases, queues, recurrence, registry, states
from .conf import conf
from .models import Delivery, Firing, Job, Schedule
from .recurrence import Act, Missed, Overlap, Recurrence

log = structlog.get_logger(__name__)

NAME = "schedules"
AT_MOST = 100  # schedules in one transaction, and moments of one schedule in one go
_OVER = [state.value for state in states.OVER]
_SOONEST_S = 0.02
_PRUNE_S = 60.0
_PRUNED = 1000  # rows in one statement


class Scheduler:
    """One worker's part in firing."""

    def __init__(self, holder: Callable[[], UUID]) -> None:
        self._leadership = leases.Leadership(NAME, holder, lease_s=lambda: conf().LEASE_S)
        self._pruned_at = time.monotonic()

    def look(self) -> float:
        """Seconds until the next look."""
        if not self._leadership.holds():
            return self._leadership.rest_s
        wait_s = look()
        if time.monotonic() - self._pruned_at > _PRUNE_S:
            self._pruned_at = time.monotonic()
            prune()
        return wait_s

    def stop(self) -> None:
        """Let another lead."""
        self._leadership.give_up()


def look() -> float:
    """Fire what is due. Seconds until something is due again, at most RECONCILE_S: schedules may be made meanwhile."""
    enough = time.monotonic() + conf().RECONCILE_S  # the lease is renewed between two looks
    while (wait_s := _wait_s()) <= 0 and time.monotonic() < enough:
        if not fire_due():
            return conf().RECONCILE_S  # other schedulers hold all that is due
    let_go()
    return min(max(wait_s, _SOONEST_S), conf().RECONCILE_S)


def fire_due() -> int:
    """Fire the schedules that are due, AT_MOST of them, the longest due first. How many were looked at."""
    now = clock.now()
    try:
        return _fire(_due(now), now)
    except OperationalError:
        raise  # the database is away, or the transaction lost against another one: the next look
    except Exception:  # noqa: BLE001
        # One of them does what the database refuses, or its task's code is broken: the others shall not wait for it.
        ids = list(_due(now).values_list("id", flat=True)[:AT_MOST])
        return sum(_fire_alone(id, now) for id in ids)


def let_go() -> int:
    """Give the moments that wait their jobs, where the ones they wait for are over. How many."""
    is_open = Exists(Job.objects.filter(id=OuterRef("last_job")).exclude(state__in=_OVER))
    ready = Schedule.objects.filter(~is_open, paused=False, waits_at__isnull=False)
    return sum(_let_go(id) for id in ready.order_by("waits_at").values_list("id", flat=True)[:AT_MOST])


def _let_go(schedule_id: int) -> int:
    skip = connection.features.has_select_for_update_skip_locked
    try:
        with transaction.atomic():
            mine = Schedule.objects.select_for_update(skip_locked=skip).filter(id=schedule_id, paused=False)
            row = mine.filter(waits_at__isnull=False).first()
            if row is None or is_open(row.last_job):  # another scheduler has seen to it
                return 0
            _end_wait(row)
            row.save(update_fields=["waits_at", "last_at", "last_job"])
            return 1
    except OperationalError:
        raise
    except Exception as error:  # noqa: BLE001
        _report_refusal(schedule_id, error)
        return 0


def give_up_waiting(schedule: Schedule, note: str) -> None:
    """The moment that waits passes, if there is one. The caller holds the row and saves `waits_at`."""
    if schedule.waits_at is not None:
        _settle(schedule, Firing.Outcome.OVERLAPPED, note=note)


class Overdue(NamedTuple):
    """schedule: the name of the one that should have fired first; "" and 0 when none is late."""

    schedule: str
    by_s: float


def overdue() -> Overdue:
    first = _next()
    by_s = 0.0 if first is None else (clock.now() - first.next_at).total_seconds()
    return Overdue(first.schedule, by_s) if first is not None and by_s > 0 else Overdue("", 0.0)


def overdue_s() -> float:
    """How late the schedule is that should have fired first; 0 when none is."""
    return overdue().by_s


class Failing(NamedTuple):
    name: str
    told: str  # what is wrong


def failing(most: int) -> list[Failing]:
    """Schedules that are active and make no jobs: that of the last moment was refused, or there is no next one."""
    last = Firing.objects.filter(schedule=OuterRef("pk"), cause=Firing.Cause.CLOCK).order_by("-due_at")[:1]
    active = Schedule.objects.filter(paused=False).annotate(
        outcome=Subquery(last.values("outcome")), note=Subquery(last.values("note"))
    )
    found = active.filter(Q(next_at=None) | Q(outcome=Firing.Outcome.REFUSED)).order_by("name")
    rows = found.values_list("name", "next_at", "note")[:most]
    return [
        Failing(name, f"its last moment made no job: {note}" if next_at else "has no next moment: it stopped")
        for name, next_at, note in rows
    ]


def order(schedule: Schedule, moment: datetime) -> Job:
    """Its job for this moment, in the caller's transaction. ValueError: `enqueue` refuses it."""
    name = schedule.queue or registry.resolve(schedule.task).queue
    if queues.find(name).delivery == Delivery.BROKER:
        raise ValueError(through_the_broker(name))
    return intake.enqueue(
        schedule.task,
        schedule.payload,
        queue=schedule.queue or None,
        priority=schedule.priority,
        tenant=schedule.tenant,
        request_id=f"schedule-{schedule.pk}-{moment:%Y%m%dT%H%M%S}Z",
    )


def record(
    schedule: Schedule, moment: datetime, outcome: str, cause: str, *, job: UUID | None = None, note: str = ""
) -> Firing:
    firing = _firing(schedule, moment, outcome, cause, job=job, note=note)
    firing.save(force_insert=True)
    return firing


def through_the_broker(queue: str) -> str:
    return f"queue {queue!r} has broker delivery, where a job cannot be stored together with its firing"


def timing(schedule: Schedule) -> Recurrence:
    """Raises BadRecurrence."""
    if schedule.interval_s is not None:
        return recurrence.every(schedule.interval_s, schedule.starts_at)
    return recurrence.cron(schedule.cron, schedule.time_zone)


def zone(schedule: Schedule) -> ZoneInfo:
    return recurrence.cron("* * * * *", schedule.time_zone).zone


def prune() -> int:
    """Delete firings past FIRING_RETENTION_S, a portion of them. How many."""
    before = clock.now() - timedelta(seconds=conf().FIRING_RETENTION_S)
    # Ids first: MySQL takes no LIMIT in a subquery of a DELETE.
    old = list(Firing.objects.filter(at__lt=before).order_by("at").values_list("id", flat=True)[:_PRUNED])
    return Firing.objects.filter(id__in=old).delete()[0] if old else 0


class _Next(NamedTuple):
    schedule: str
    next_at: datetime


def _next() -> _Next | None:
    """The next moment of all."""
    active = Schedule.objects.filter(paused=False, next_at__isnull=False).order_by("next_at")
    found = active.values_list("name", "next_at").first()
    return None if found is None else _Next(*found)


def _wait_s() -> float:
    """Seconds until it."""
    first = _next()
    return conf().RECONCILE_S if first is None else (first.next_at - clock.now()).total_seconds()


def _due(now: datetime) -> QuerySet[Schedule]:
    return Schedule.objects.filter(paused=False, next_at__lte=now).order_by("next_at", "id")


def _fire_alone(schedule_id: int, now: datetime) -> int:
    try:
        return _fire(_due(now).filter(id=schedule_id), now)
    except OperationalError:
        raise
    except Exception as error:  # noqa: BLE001
        _report_refusal(schedule_id, error)
        return 0


def _report_refusal(schedule_id: int, error: Exception) -> None:
    log.error("schedule_not_fired", schedule=schedule_id, error=type(error).__name__, reason=str(error)[:200])


def _fire(due: QuerySet[Schedule], now: datetime) -> int:
    skip = connection.features.has_select_for_update_skip_locked
    with transaction.atomic():
        schedules = list(due.select_for_update(skip_locked=skip)[:AT_MOST])
        if not schedules:
            return 0
        plans = [(schedule, _plan(schedule, now)) for schedule in schedules]
        done = _done(plans)
        firings = [firing for schedule, plan in plans for firing in _firings(schedule, plan, done)]
        Firing.objects.bulk_create(firings)
        Schedule.objects.bulk_update(schedules, ["next_at", "last_at", "last_job", "waits_at"])
    return len(schedules)


def _plan(schedule: Schedule, now: datetime) -> recurrence.Plan:
    """A schedule whose zone or expression this host does not know any more stops, and says so."""
    assert schedule.next_at is not None  # noqa: S101  (it is due)
    try:
        return recurrence.plan(
            timing(schedule),
            schedule.next_at,
            now,
            missed=Missed(schedule.missed),
            window_s=schedule.window_s,
            grace_s=conf().SCHEDULE_GRACE_S,
            at_most=AT_MOST,
        )
    except ValueError as error:
        log.error("schedule_stopped", schedule=schedule.name, reason=str(error))
        return recurrence.Plan((), (schedule.next_at, now), None)


def _done(plans: Sequence[tuple[Schedule, recurrence.Plan]]) -> set[tuple[int, datetime]]:
    """The moments that have a firing already: a backfill came first."""
    moments = {moment for _, plan in plans for moment in (*plan.fire, *(plan.missed or ())[:1])}
    found = Firing.objects.filter(schedule__in=[schedule for schedule, _ in plans], due_at__in=moments)
    return set(found.values_list("schedule_id", "due_at"))


def _firings(schedule: Schedule, plan: recurrence.Plan, done: set[tuple[int, datetime]]) -> list[Firing]:
    found: list[Firing] = []
    if plan.missed and (schedule.pk, plan.missed[0]) not in done:
        first, until = plan.missed
        note = f"and what followed before {until:%Y-%m-%d %H:%M:%S} UTC"
        found.append(_firing(schedule, first, Firing.Outcome.MISSED, Firing.Cause.CLOCK, note=note))
        log.warning("schedule_missed", schedule=schedule.name, since=str(first), until=str(until))
    if schedule.waits_at is not None and not is_open(schedule.last_job):
        _end_wait(schedule, found)  # it was there before them
    for moment in plan.fire:
        if (schedule.pk, moment) not in done:
            found.append(_fire_moment(schedule, moment, found))
    schedule.next_at = plan.next_at
    return found


def _fire_moment(schedule: Schedule, moment: datetime, fresh: Sequence[Firing]) -> Firing:
    """fresh: the schedule's firings of this transaction that are not stored yet."""
    overlap = Overlap(schedule.overlap)
    meets = overlap != Overlap.ALLOW and is_open(schedule.last_job)
    if meets and overlap == Overlap.REPLACE:
        meets = not _cancel(schedule)
    act = recurrence.act(overlap, is_open=meets, waits=schedule.waits_at is not None)
    if act == Act.FIRE:
        return _ordered(schedule, moment)
    note = f"job {schedule.last_job} is not over"
    if act == Act.SKIP:
        return _firing(schedule, moment, Firing.Outcome.OVERLAPPED, Firing.Cause.CLOCK, note=note)
    if schedule.waits_at is not None:
        _settle(schedule, Firing.Outcome.OVERLAPPED, fresh, note="a later moment took its place")
    schedule.waits_at = moment
    return _firing(schedule, moment, Firing.Outcome.WAITING, Firing.Cause.CLOCK, note=note)


def _ordered(schedule: Schedule, moment: datetime) -> Firing:
    try:
        job = order(schedule, moment)
    except ValueError as error:
        log.error("schedule_refused", schedule=schedule.name, due_at=str(moment), reason=str(error)[:200])
        return _firing(schedule, moment, Firing.Outcome.REFUSED, Firing.Cause.CLOCK, note=str(error))
    schedule.last_at, schedule.last_job = moment, job.id
    return _firing(schedule, moment, Firing.Outcome.FIRED, Firing.Cause.CLOCK, job=job.id)


def _cancel(schedule: Schedule) -> bool:
    """Ask the last one's job to end, once. Whether it is over."""
    job = Job.objects.get(id=schedule.last_job)
    if not job.cancel_requested:
        with suppress(cancelling.Over):  # it has ended meanwhile
            cancelling.cancel(job, actor=f"schedule {schedule.name}", source="system")
    return not is_open(job.id)


def _end_wait(schedule: Schedule, fresh: Sequence[Firing] = ()) -> None:
    """The moment that waits gets its job. The caller holds the row and saves it."""
    assert schedule.waits_at is not None  # noqa: S101
    waited_for = schedule.last_job
    made = _ordered(schedule, schedule.waits_at)
    note = made.note or f"waited for job {waited_for}"
    _settle(schedule, made.outcome, fresh, job=made.job, note=note)


def _settle(
    schedule: Schedule, outcome: str, fresh: Sequence[Firing] = (), *, job: UUID | None = None, note: str
) -> None:
    """What became of the moment that waits, which does no more. The caller saves the schedule."""
    moment, schedule.waits_at = schedule.waits_at, None
    changes = {"outcome": outcome, "job": job, "note": note[:200], "at": clock.now()}
    for unsaved in fresh:
        if unsaved.due_at == moment:
            for field, value in changes.items():
                setattr(unsaved, field, value)
            return
    Firing.objects.filter(schedule=schedule, due_at=moment).update(**changes)


def is_open(job_id: UUID | None) -> bool:
    if job_id is None:
        return False
    return Job.objects.filter(id=job_id).exclude(state__in=_OVER).exists()


def _firing(
    schedule: Schedule, moment: datetime, outcome: str, cause: str, *, job: UUID | None = None, note: str = ""
) -> Firing:
    return Firing(
        schedule=schedule,
        due_at=moment,
        at=clock.now(),
        outcome=outcome,
        cause=cause,
        job=job,
        note=note[:200],
    )
