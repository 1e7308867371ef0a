"""Schedules: made, changed, paused and fired by hand; the one place that changes what an operator decides about them.

create | change → checked as a whole → row, next_at   ·   run_now | backfill → firing.order → job and firing
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from foundation import audit

from . import clock, failures, firing, queues, recurrence, registry, states
from .conf import conf
from .models import Delivery, Firing, Job, Schedule
from .recurrence import BadRecurrence, Missed, Overlap, Recurrence

EDITABLE = (
    "task", "payload", "queue", "priority", "tenant", "cron", "interval_s", "time_zone", "missed", "window_s", "overlap",
)  # fmt: skip
MOST_BACKFILLED = 1000  # moments at once: they are stored in one transaction
_TEXTS = ("task", "queue", "tenant", "cron", "time_zone", "missed", "overlap")
_TIMING = {"cron", "interval_s", "time_zone"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,98}[A-Za-z0-9]|[A-Za-z0-9]")
_LONGEST_TENANT = 64


class BadSchedule(ValueError):
    """errors: what is wrong, by field."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        self.errors = dict(errors)
        super().__init__("; ".join(f"{field}: {told}" for field, told in errors.items()))


class Refused(ValueError):
    """The schedule cannot do that now; the message says why."""


def create(
    name: str,
    *,
    actor: Any,
    source: str,
    request_id: str | None = None,
    ip: str | None = None,
    paused: bool = False,
    **fields: Any,
) -> Schedule:
    """A schedule with these EDITABLE fields; of those left out the model's defaults. Raises BadSchedule."""
    schedule = examine(name, **fields)
    schedule.paused = paused
    trace = {"actor": actor, "source": source, "request_id": request_id, "ip": ip}
    try:
        with transaction.atomic():
            schedule.save(force_insert=True)
            after = _standing(schedule, ("name", "paused", *EDITABLE))
            audit.record(action="schedule.create", target=schedule, after=after, **trace)
    except IntegrityError as error:
        if not Schedule.objects.filter(name=name).exists():
            raise
        raise BadSchedule({"name": f"there is a schedule {name!r} already"}) from error
    return schedule


def examine(name: str, **fields: Any) -> Schedule:
    """What `create` would make of these, not stored. Raises BadSchedule."""
    _refuse_unknown(fields)
    schedule = Schedule(name=name, starts_at=_whole(clock.now()), **fields)
    _check(schedule, {} if _is_name(name) else {"name": "use up to 100 letters, digits, spaces and . _ -"})
    schedule.next_at = _first_after(schedule, schedule.starts_at)
    return schedule


def change(
    schedule: Schedule,
    *,
    actor: Any,
    source: str,
    request_id: str | None = None,
    ip: str | None = None,
    **changes: Any,
) -> Schedule:
    """Change EDITABLE fields. A new timing counts from now: what was due before it does not fire. Raises BadSchedule."""
    _refuse_unknown(changes)
    with transaction.atomic():
        row = _locked(schedule)
        before = _standing(row, changes)
        for field, value in changes.items():
            setattr(row, field, value)
        _check(row, {})
        new = {key: value for key, value in _standing(row, changes).items() if value != before[key]}
        if _TIMING & set(new) - (
            {"time_zone"} if row.interval_s else set()
        ):  # which an interval is only shown in
            row.starts_at = _whole(clock.now())
            row.next_at = _first_after(row, row.starts_at)
            firing.give_up_waiting(row, "the schedule's times were changed")
        if new:
            row.save(update_fields=[*new, "starts_at", "next_at", "waits_at"])
            trace = {"actor": actor, "source": source, "request_id": request_id, "ip": ip}
            was = {key: before[key] for key in new}
            audit.record(action="schedule.change", target=row, before=was, after=new, **trace)
    return row


def delete(schedule: Schedule, *, actor: Any, source: str, **trace: Any) -> None:
    """Its firings go too; the jobs that it made stay."""
    with transaction.atomic():
        row = _locked(schedule)
        before = _standing(row, ("name", *EDITABLE))
        audit.record(actor=actor, action="schedule.delete", target=row, before=before, source=source, **trace)
        row.delete()


def pause(schedule: Schedule, *, actor: Any, source: str, **trace: Any) -> Schedule:
    return _set_paused(schedule, True, actor=actor, source=source, **trace)


def resume(schedule: Schedule, *, actor: Any, source: str, **trace: Any) -> Schedule:
    """From now on: what was due during the pause does not fire, and counts as no missed run."""
    return _set_paused(schedule, False, actor=actor, source=source, **trace)


def run_now(schedule: Schedule, *, actor: Any, source: str, **trace: Any) -> Job:
    """A job at once, paused or not and whatever the overlap policy says. Raises Refused."""
    with transaction.atomic():
        row = _locked(schedule)
        moment = _free(row, clock.now())
        job = _order(row, moment)
        firing.record(row, moment, Firing.Outcome.FIRED, Firing.Cause.HAND, job=job.id)
        if not firing.is_open(row.last_job):  # else the clock's moments go on to wait for that one's end
            Schedule.objects.filter(pk=row.pk).update(last_job=job.id)
        audit.record(
            actor=actor,
            action="schedule.run",
            target=row,
            after={"job": str(job.id)},
            source=source,
            **trace,
        )
    return job


def backfill(
    schedule: Schedule, start: datetime, end: datetime, *, actor: Any, source: str, **trace: Any
) -> list[Job]:
    """A job for each moment from start to end, both included, that has none yet. Raises BadSchedule or Refused."""
    with transaction.atomic():
        row = _locked(schedule)
        moments = backfillable(row, start, end)
        jobs = [_order(row, moment) for moment in moments]
        gone = Firing.objects.filter(schedule=row, due_at__in=moments)
        gone.delete()  # missed, overlapped or refused: they have a job now
        for moment, job in zip(moments, jobs, strict=True):
            firing.record(row, moment, Firing.Outcome.FIRED, Firing.Cause.BACKFILL, job=job.id)
        what = {"start": start, "end": end, "jobs": len(jobs)}
        audit.record(actor=actor, action="schedule.backfill", target=row, after=what, source=source, **trace)
    return jobs


def backfillable(schedule: Schedule, start: datetime, end: datetime) -> list[datetime]:
    """The moments from start to end that have no job yet. Raises BadSchedule."""
    if timezone.is_naive(start) or timezone.is_naive(end):
        raise BadSchedule({"start": "start and end need a time zone"})
    if start > end:
        raise BadSchedule({"end": "is before the start"})
    now = clock.now()
    if end > now:
        raise BadSchedule({"end": "is in the future: those moments come by themselves"})
    known = now - timedelta(seconds=conf().FIRING_RETENTION_S)
    if start < known and schedule.created_at < known:
        told = (
            f"what fired before {known:%Y-%m-%d %H:%M:%S} UTC is not on record any more (FIRING_RETENTION_S)"
        )
        raise BadSchedule({"start": f"{told}: take a new schedule for such moments"})
    moments = recurrence.between(timing(schedule), start, end, at_most=MOST_BACKFILLED + 1)
    if len(moments) > MOST_BACKFILLED:
        raise BadSchedule({"end": f"more than {MOST_BACKFILLED:,} moments: take a part of them at a time"})
    fired = Firing.objects.filter(schedule=schedule, due_at__range=(start, end), job__isnull=False)
    done = {*fired.values_list("due_at", flat=True), schedule.waits_at}  # the one that waits gets its own
    return [moment for moment in moments if moment not in done]


def timing(schedule: Schedule) -> Recurrence:
    """Raises BadRecurrence."""
    return firing.timing(schedule)


def next_runs(schedule: Schedule, count: int = 5) -> list[datetime]:
    """Empty while it is paused."""
    if schedule.paused or schedule.next_at is None:
        return []
    try:
        return [schedule.next_at, *recurrence.upcoming(timing(schedule), schedule.next_at, count - 1)]
    except BadRecurrence:  # as in `words`
        return [schedule.next_at]


def words(schedule: Schedule) -> str:
    """ "At 09:00 every day, Europe/Berlin"."""
    try:
        return timing(schedule).words()
    except BadRecurrence as error:  # a zone that this host's tz database does not have
        return str(error)


def next_words(schedule: Schedule, moment: datetime, now: datetime) -> str:
    """ "in 3 hours: Thu 26 Nov 2026 09:00:00 CET"."""
    return recurrence.told(moment, now, zone(schedule))


def zone(schedule: Schedule) -> tzinfo:
    """In which its moments are told; UTC where this host does not know its own."""
    try:
        return firing.zone(schedule)
    except BadRecurrence:
        return UTC


def _check(schedule: Schedule, errors: dict[str, str]) -> None:
    """Raises BadSchedule with these errors and those of the schedule's own fields."""
    not_texts = [field for field in _TEXTS if not isinstance(getattr(schedule, field), str)]
    errors |= dict.fromkeys(not_texts, "is not a text")
    for look in () if not_texts else (_check_timing, _check_policies, _check_work):
        errors |= dict(look(schedule))
    if errors:
        raise BadSchedule(errors)


def _check_timing(schedule: Schedule) -> list[tuple[str, str]]:
    if bool(schedule.cron) == (schedule.interval_s is not None):
        return [("cron", "give either a cron expression or an interval")]
    try:
        found = timing(schedule)
        if found.after(schedule.starts_at) is None:
            raise BadRecurrence("cron", f"{schedule.cron!r} never comes")
        if isinstance(found, recurrence.Every):
            recurrence.cron("* * * * *", schedule.time_zone)  # shown in it
        else:
            schedule.cron = found.expression  # type: ignore[attr-defined]
    except BadRecurrence as error:
        return [(error.field, str(error))]
    return []


def _check_policies(schedule: Schedule) -> list[tuple[str, str]]:
    found = []
    if schedule.missed not in set(Missed):
        found.append(("missed", f"{schedule.missed!r} is not one of {', '.join(Missed)}"))
    if schedule.overlap not in set(Overlap):
        found.append(("overlap", f"{schedule.overlap!r} is not one of {', '.join(Overlap)}"))
    window_s: Any = schedule.window_s
    if type(window_s) is not int or not 1 <= window_s <= recurrence.LONGEST_WINDOW_S:
        found.append(("window_s", f"{window_s!r} is not a whole number of seconds from 1 to 366 days"))
    return found


def _check_work(schedule: Schedule) -> list[tuple[str, str]]:
    """What `enqueue` would refuse at each moment is refused here at once."""
    found = []
    try:
        states.priority(schedule.priority)
    except ValueError as error:
        found.append(("priority", str(error)))
    if len(schedule.tenant) > _LONGEST_TENANT or not failures.is_clean(schedule.tenant):
        found.append(("tenant", f"is not a text of up to {_LONGEST_TENANT} characters"))
    try:
        task = registry.resolve(schedule.task)
    except ValueError as error:
        return [*found, ("task", str(error))]
    if task.secret_fields:
        return [*found, ("task", f"{task.name} has secret fields, which a schedule would keep in clear")]
    return [*found, *_check_payload(task, schedule.payload), *_check_queue(schedule.queue or task.queue)]


def _check_payload(task: registry.Task, payload: Any) -> list[tuple[str, str]]:
    if not isinstance(payload, dict):
        return [("payload", "is not an object")]
    try:
        task.accept(payload, max_bytes=conf().MAX_PAYLOAD_BYTES)
    except ValueError as error:
        return [("payload", str(error))]
    return []


def _check_queue(name: str) -> list[tuple[str, str]]:
    try:
        queue = queues.find(name)
    except ValueError as error:
        return [("queue", str(error))]
    if queue.delivery == Delivery.BROKER:
        return [("queue", firing.through_the_broker(name))]
    return []


def _set_paused(schedule: Schedule, paused: bool, *, actor: Any, source: str, **trace: Any) -> Schedule:
    with transaction.atomic():
        row = _locked(schedule)
        if row.paused == paused:
            return row
        row.paused = paused
        if paused:
            firing.give_up_waiting(row, "the schedule was paused")
        else:
            row.next_at = _first_after(row, clock.now())
        row.save(update_fields=["paused", "next_at", "waits_at"])
        audit.record(
            actor=actor,
            action="schedule.pause" if paused else "schedule.resume",
            target=row,
            before={"paused": not paused},
            after={"paused": paused},
            source=source,
            **trace,
        )
    return row


def _locked(schedule: Schedule) -> Schedule:
    """The row as it stands, held until the transaction ends; no scheduler fires it meanwhile. Raises Refused."""
    row = Schedule.objects.select_for_update().filter(pk=schedule.pk).first()
    if row is None:
        raise Refused(f"the schedule {schedule.name!r} is gone")
    return row


def _free(schedule: Schedule, moment: datetime) -> datetime:
    """The moment, or the first one after it that has no firing: two operators may run it in one. The caller holds the row."""
    while Firing.objects.filter(schedule=schedule, due_at=moment).exists():
        moment += timedelta(microseconds=1)
    return moment


def _order(schedule: Schedule, moment: datetime) -> Job:
    try:
        return firing.order(schedule, moment)
    except ValueError as error:
        raise Refused(f"{schedule.name!r} made no job: {error}") from error


def _first_after(schedule: Schedule, moment: datetime) -> datetime | None:
    try:
        return timing(schedule).after(moment)
    except BadRecurrence as error:
        raise Refused(str(error)) from error


def _refuse_unknown(fields: Mapping[str, Any]) -> None:
    unknown = set(fields) - set(EDITABLE)
    if unknown:
        raise TypeError(f"a schedule has no {', '.join(sorted(unknown))}")


def _is_name(name: object) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _standing(schedule: Schedule, fields: Any) -> dict[str, Any]:
    return {field: getattr(schedule, field) for field in fields}


def _whole(moment: datetime) -> datetime:
    """So that an interval's moments are whole seconds too."""
    return moment.replace(microsecond=0)
