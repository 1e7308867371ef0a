"""What is wrong with the queues now, and what to do about it: looks at everything, changes nothing.

each look → findings, the ones that are well too → the command's table and exit code
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from datetime import timedelta

from django.utils import timezone

from foundation.findings import Finding, Level

from . import (
    alerts_told,
    clock,
    conditions,
    firing,
    health,
    notice_channels,
    notices,
    queues,
    registry,
    stats,
    workers,
)
from .conf import conf
from .models import BulkAction, Job
from .states import Asked

_CLOCK_S = (
    2.0  # a host whose clock differs from the database's by more than this logs and expires at wrong times
)
_LATE_S = 60.0  # a backlog that is older than this is worth a word
_MOST = 1_000  # open jobs whose tasks are looked at
_MOST_SCHEDULES = 20  # that are named


def examine() -> list[Finding]:
    """All of it. A DatabaseError is the caller's."""
    return [finding for look in _LOOKS for finding in look()]


def _broker() -> Iterator[Finding]:
    found = health.check()
    hint = (
        ""
        if found.ok
        else "Start it, or set BROKER_URL. Jobs are accepted meanwhile, and published when it is back."
    )
    yield Finding(Level.OK if found.ok else Level.ERROR, "broker", found.detail, hint)


def _recorder() -> Iterator[Finding]:
    found = health.check_recorder()
    hint = "Plain tasks run, and their rows are late: is a worker alive?" if found.degraded else ""
    yield Finding(Level.WARNING if found.degraded else Level.OK, "recorder", found.detail, hint)


def _clocks() -> Iterator[Finding]:
    off_s = (timezone.now() - clock.read()).total_seconds()
    is_off = abs(off_s) > _CLOCK_S
    hint = (
        "Have it follow NTP: run_at, created_at and broker delivery's delays go by the caller's clock."
        if is_off
        else ""
    )
    told = f"this host's is {off_s:+.3f} s from the database's"
    yield Finding(Level.WARNING if is_off else Level.OK, "clock", told, hint)


def _workers() -> Iterator[Finding]:
    living = list(workers.living())
    told = f"{len(living)} alive, {sum(worker.concurrency for worker in living)} slots"
    yield Finding(Level.OK, "workers", told)
    for worker in living:
        if worker.stuck:
            hint = "They were given up at their time limit; the worker starts itself anew. Use prefork for such tasks."
            yield Finding(Level.WARNING, f"worker {worker}", f"{worker.stuck} threads do not come back", hint)
        elif worker.asked == Asked.QUIET:
            hint = f"manage.py queue unquiet {worker.id}"
            yield Finding(Level.WARNING, f"worker {worker}", "was asked to be quiet", hint)


def _queues() -> Iterator[Finding]:
    slots = workers.slots()
    for depth in stats.depths():
        about, waits = f"queue {depth.queue}", depth.oldest_due_s > 0
        told = f"the oldest job that is due waits for {depth.oldest_due_s:.0f} s"
        if depth.paused and waits:
            hint = f"manage.py queue resume {depth.queue}"
            yield Finding(Level.WARNING, about, f"is paused, and {told}", hint)
        elif waits and not slots.get(depth.queue):
            hint = "Start one: manage.py queue, or add the queue to a worker's -Q"
            yield Finding(Level.ERROR, about, f"no worker consumes it, and {told}", hint)
        elif depth.oldest_due_s > _LATE_S:
            hint = "More workers (manage.py queue autoscale), or look at what runs: manage.py queue list --state PROCESSING"
            yield Finding(Level.WARNING, about, told, hint)
        else:
            yield Finding(Level.OK, about, told if waits else "nothing is due")


def _schedules() -> Iterator[Finding]:
    late = firing.overdue()
    is_late = late.by_s > conf().SCHEDULE_GRACE_S
    hint = "A worker or beat fires them; is one alive?" if is_late else ""
    told = f"{late.schedule!r} should have fired {late.by_s:.0f} s ago" if late.by_s else "none is overdue"
    yield Finding(Level.ERROR if is_late else Level.OK, "schedules", told, hint)
    for schedule in firing.failing(_MOST_SCHEDULES):
        hint = f"manage.py queue schedules show {shlex.quote(schedule.name)}"
        yield Finding(Level.WARNING, f"schedule {schedule.name}", schedule.told, hint)


def _alerts() -> Iterator[Finding]:
    if not conf().ALERTS:
        yield Finding(Level.OK, "alerts", "are switched off")
        return
    ways = ", ".join(channel.name for channel in notice_channels.channels())
    told = f"what fires is told to {ways or 'nobody'}"
    hint = "" if ways else "Set BRAIN_ALERT_WEBHOOKS or BRAIN_ALERT_MAIL"
    last = alerts_told.looked_at()
    if last is not None and clock.now() - last > timedelta(seconds=max(_LATE_S, 5 * conf().ALERT_LOOK_S)):
        told = f"nobody has looked at the rules since {last:%Y-%m-%d %H:%M:%S} UTC"
        hint = "A worker, beat or `queue autoscale` does; from cron: manage.py queue alerts check"
        yield Finding(Level.WARNING, "alerts", told, hint)
    else:
        yield Finding(Level.OK, "alerts", told, hint)
    for channel, error in notices.failing(_LATE_S):
        hint = f"manage.py queue alerts test {channel}"
        yield Finding(Level.WARNING, f"alert channel {channel}", f"does not take its notices: {error}", hint)
    for channel, number, error in notices.given_up():
        told = f"{number} of its notices were given up within a day, the last with: {error}"
        hint = "manage.py queue alerts resend " + shlex.quote(channel)
        yield Finding(Level.WARNING, f"alert channel {channel}", told, hint)


def _tasks() -> Iterator[Finding]:
    """Of the newest open jobs: a task that is gone is tried for ever."""
    names = (
        Job.objects.filter(conditions.OPEN, delivery="ledger")
        .order_by("-id")
        .values_list("name", flat=True)[:_MOST]
    )
    for name in sorted(set(names)):
        if not _is_known(name):
            hint = "Deploy the code that has it, or: manage.py queue cancel --all --task " + name
            yield Finding(Level.ERROR, f"task {name}", "has open jobs, and no code here knows it", hint)


def _is_known(name: str) -> bool:
    try:
        registry.find(name)
    except registry.UnknownTask:
        return False
    return True


def _bulk_actions() -> Iterator[Finding]:
    stale = clock.now() - timedelta(seconds=_LATE_S)
    for row in BulkAction.objects.filter(finished_at=None).order_by("created_at")[:20]:
        if row.counted_to < stale and not workers.alive():
            hint = "The workers' leader works it off: start a worker"
            yield Finding(Level.WARNING, f"bulk action {row.id}", "nobody works it off", hint)


def _names() -> Iterator[Finding]:
    for name in sorted(queues.declared()):
        if not queues.is_name(name):
            yield Finding(
                Level.ERROR, f"queue {name}", "cannot have this name", "See docs/checks.md#queue-e003."
            )


_LOOKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _broker, _recorder, _clocks, _workers, _queues, _schedules, _alerts, _tasks, _bulk_actions, _names,
)  # fmt: skip
