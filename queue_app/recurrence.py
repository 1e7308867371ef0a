"""When a schedule is due: cron in a time zone, or an interval → moments → which of them fire, and which were missed.

All moments go in and come out in UTC. At a change of the clocks cron's moments follow Debian's cron: a time that does not
exist fires when the clocks have changed, one that comes twice fires the first time, and an expression whose minute or hour
begins with a star goes by elapsed time (none in the hour that is left out, twice in the one that comes twice).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from itertools import islice
from typing import Protocol
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

LONGEST_EXPRESSION = 100
LONGEST_INTERVAL_S = 366 * 86_400
LONGEST_WINDOW_S = 366 * 86_400
_FIRST_STEP = timedelta(hours=1)
_UNITS = (("week", 604_800), ("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))


class BadRecurrence(ValueError):
    """field: what the message is about."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Missed(StrEnum):
    """What becomes of moments that nobody fired in time. One is missed when the next has come too, or after the grace."""

    SKIP = "skip"  # none of them fires
    LAST = "last"  # the newest fires, once
    ALL = "all"  # all within the window fire, the oldest first


class Overlap(StrEnum):
    """What happens when a moment comes and the job of the last one is not over."""

    ALLOW = "allow"  # both run
    SKIP = "skip"  # the moment passes
    WAIT = "wait"  # the moment waits for that job's end; while one waits, others pass
    REPLACE = (
        "replace"  # that job is cancelled, and the moment waits for its end; a later moment takes its place
    )


class Act(StrEnum):
    """What becomes of a moment whose time has come."""

    FIRE = "fire"
    SKIP = "skip"
    WAIT = "wait"


class Recurrence(Protocol):
    def after(self, moment: datetime) -> datetime | None:
        """The first moment later than this; None: there is none."""

    def latest(self, first: datetime, now: datetime) -> datetime:
        """The newest moment from `first`, which is one, up to and including now."""

    def words(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Cron:
    expression: str
    zone: ZoneInfo

    def after(self, moment: datetime) -> datetime | None:
        return next(self._from(moment), None)

    def latest(self, first: datetime, now: datetime) -> datetime:
        # Only forwards, so that both directions never disagree about a change of the clocks; a window that doubles
        # finds the last minute of a year-long outage as fast as that of an hour.
        step = _FIRST_STEP
        while now - step > first:
            found = list(_up_to(now, self._from(now - step)))
            if found:
                return found[-1]
            step *= 2
        return max(_up_to(now, self._from(first)), default=first)

    def words(self) -> str:
        told = CronSim(self.expression, datetime(2000, 1, 1, tzinfo=UTC)).explain()
        return f"{told}, {self.zone.key}"

    def _from(self, moment: datetime) -> Iterator[datetime]:
        """Its moments later than this one."""
        last = moment.astimezone(UTC)
        for local in CronSim(self.expression, moment.astimezone(self.zone)):
            found = local.astimezone(UTC)
            # In the hour that comes twice cronsim counts from the first pass, also when the second is asked for.
            if found > last:
                yield found
                last = found


@dataclass(frozen=True, slots=True)
class Every:
    """since + n · interval. Elapsed time: no change of the clocks matters."""

    interval_s: int
    since: datetime

    def after(self, moment: datetime) -> datetime | None:
        if moment < self.since:
            return self.since
        step = timedelta(seconds=self.interval_s)
        return self.since + ((moment - self.since) // step + 1) * step

    def latest(self, first: datetime, now: datetime) -> datetime:
        step = timedelta(seconds=self.interval_s)
        return max(first, self.since + ((now - self.since) // step) * step)

    def words(self) -> str:
        length = span(self.interval_s)
        return f"Every {length.removeprefix('1 ') if length.count(' ') == 1 else length}"


@dataclass(frozen=True, slots=True)
class Plan:
    """fire: the moments that fire now, oldest first. missed: the first one that does not, and where the missed end.

    next_at: the next moment to look at, which is due already when there were more than fit; None: never again.
    """

    fire: tuple[datetime, ...]
    missed: tuple[datetime, datetime] | None
    next_at: datetime | None


def cron(expression: str, time_zone: str) -> Cron:
    """Five fields of cron, in a zone of the IANA database. Raises BadRecurrence."""
    zone = _zone(time_zone)
    text = " ".join(expression.split())
    if len(text) > LONGEST_EXPRESSION:
        raise BadRecurrence("cron", f"a cron expression has at most {LONGEST_EXPRESSION} characters")
    if len(text.split()) != 5:
        raise BadRecurrence(
            "cron", f"{text!r} has not the five fields of cron: minute hour day month weekday"
        )
    try:
        CronSim(text, datetime(2000, 1, 1, tzinfo=UTC))
    except (CronSimError, ValueError, AssertionError) as error:
        field = str(error).removeprefix("Bad ") or "expression"
        raise BadRecurrence("cron", f"{text!r} is no cron expression: its {field} is wrong") from error
    return Cron(text, zone)


def every(interval_s: int, since: datetime) -> Every:
    """Raises BadRecurrence."""
    if isinstance(interval_s, bool) or not isinstance(interval_s, int):
        raise BadRecurrence("interval_s", f"{interval_s!r} is not a whole number of seconds")
    if not 1 <= interval_s <= LONGEST_INTERVAL_S:
        raise BadRecurrence("interval_s", f"{interval_s} s is not between 1 second and 366 days")
    return Every(interval_s, since)


def plan(
    recurrence: Recurrence,
    next_at: datetime,
    now: datetime,
    *,
    missed: Missed,
    window_s: float,
    grace_s: float,
    at_most: int,
) -> Plan:
    """What a schedule does that has fired everything before next_at. at_most: moments to fire in one go."""
    if next_at > now:
        return Plan((), None, next_at)
    if missed == Missed.ALL:
        since = now - timedelta(seconds=max(window_s, grace_s))
        return _all_since(recurrence, next_at, now, since, at_most)
    newest = recurrence.latest(next_at, now)
    fires = missed == Missed.LAST or now - newest <= timedelta(seconds=grace_s)
    lost = None if fires and newest == next_at else (next_at, newest if fires else now)
    return Plan((newest,) if fires else (), lost, recurrence.after(now))


def act(overlap: Overlap, *, is_open: bool, waits: bool) -> Act:
    """is_open: the last one's job is not over, and where it is to be replaced, its cancel was asked for. waits: a moment
    before this one does.
    """
    if not is_open or overlap == Overlap.ALLOW:
        return Act.FIRE
    if overlap == Overlap.SKIP or (overlap == Overlap.WAIT and waits):
        return Act.SKIP
    return Act.WAIT


def between(recurrence: Recurrence, start: datetime, end: datetime, *, at_most: int) -> list[datetime]:
    """Its moments from start to end, both included; the first `at_most` of them."""
    return list(islice(_up_to(end, _moments(recurrence, start - timedelta(microseconds=1))), at_most))


def upcoming(recurrence: Recurrence, moment: datetime, count: int) -> list[datetime]:
    return list(islice(_moments(recurrence, moment), count))


def span(seconds: float) -> str:
    """In words, by its two largest units: "1 hour 30 minutes"."""
    left, parts = round(seconds), list[str]()
    for unit, size_s in _UNITS:
        count, left = divmod(left, size_s)
        if count:
            parts.append(f"{count} {unit}{'' if count == 1 else 's'}")
    return " ".join(parts[:2]) or "0 seconds"


def told(moment: datetime, now: datetime, zone: tzinfo) -> str:
    """ "in 3 hours 5 minutes: Thu 26 Nov 2026 09:00:00 CET"."""
    away_s = (moment - now).total_seconds()
    away = f"in {span(away_s)}" if away_s >= 0 else f"{span(-away_s)} ago"
    return f"{away}: {moment.astimezone(zone):%a %d %b %Y %H:%M:%S %Z}"


def _all_since(
    recurrence: Recurrence, next_at: datetime, now: datetime, since: datetime, at_most: int
) -> Plan:
    first = next_at if next_at >= since else recurrence.after(since - timedelta(microseconds=1))
    if first is None or first > now:
        return Plan((), (next_at, now), first)
    fire = [first, *islice(_up_to(now, _moments(recurrence, first)), at_most - 1)]
    lost = None if first == next_at else (next_at, first)
    return Plan(tuple(fire), lost, recurrence.after(fire[-1]))


def _moments(recurrence: Recurrence, moment: datetime) -> Iterator[datetime]:
    following = recurrence.after(moment)
    while following is not None:
        yield following
        following = recurrence.after(following)


def _up_to(end: datetime, moments: Iterator[datetime]) -> Iterator[datetime]:
    for moment in moments:
        if moment > end:
            return
        yield moment


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # OSError: the name of a folder, like "Europe"
        close = difflib.get_close_matches(name, available_timezones(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "use a name like 'Europe/Berlin'"
        raise BadRecurrence("time_zone", f"{name!r} is no time zone; {hint}") from error
