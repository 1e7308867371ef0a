"""The levels of the statistics: spans of one length each, a coarser one summed up from a finer one, kept beside each other.

step counted → its minute → 5 minutes → … → day; a question → the coarsest level that has what it asks for

The rows of all tenants have every level, so that a question without a tenant never reads tenants' rows; those of one tenant,
of which there may be as many as jobs, skip two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

ALL_TIME_S = 0  # has no tenants, and is no level
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
LEVELS = (MINUTE_S, 300, 900, HOUR_S, 21_600, DAY_S)
LEVELS_OF_TENANT = (MINUTE_S, 300, HOUR_S, DAY_S)
AGES = ((MINUTE_S, 300, 900), (HOUR_S, 21_600), (DAY_S,))  # levels that are kept for the same time
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Key(NamedTuple):
    """Whose row it is. step_s: length of the span; at: where it begins; no tenant: of all of them."""

    step_s: int
    at: datetime
    queue: str
    name: str
    tenant: str


class Mark(NamedTuple):
    """How far a level has come.

    upto, row: it holds every finer row that begins before `upto`, and of those that begin there the ones with ids up to
    `row`. kept_from: what began before is deleted, or will be.
    """

    upto: datetime = EPOCH
    row: int = 0
    kept_from: datetime = EPOCH

    def holds(self, at: datetime, row: int) -> bool:
        return (at, row) <= (self.upto, self.row)


Marks = Mapping[int, Mark]  # of every level


class Part(NamedTuple):
    """The rows of one level that begin in [since, until)."""

    step_s: int
    since: datetime
    until: datetime


def levels(tenant: str) -> Sequence[int]:
    return LEVELS_OF_TENANT if tenant else LEVELS


def coarser(step_s: int, tenant: str) -> int | None:
    """The level that rows of this one are summed up in; None of days and of all time."""
    return next((coarse_s for coarse_s in levels(tenant) if 0 < step_s < coarse_s), None)


def finer(step_s: int, tenant: str) -> int | None:
    """The level whose rows are summed up in this one; None of minutes, and of a level that has no such rows."""
    below = [fine_s for fine_s in levels(tenant) if fine_s < step_s]
    return below[-1] if below and step_s in levels(tenant) else None


def floor(at: datetime, step_s: int) -> datetime:
    """Where the span begins that this moment is in."""
    return EPOCH + timedelta(seconds=(at - EPOCH).total_seconds() // step_s * step_s)


def closed_to(step_s: int, marks: Marks) -> datetime:
    """Where the level's last whole span ends that holds all that it will; minutes always do."""
    return datetime.max.replace(tzinfo=UTC) if step_s == MINUTE_S else floor(marks[step_s].upto, step_s)


def due_to(step_s: int, marks: Marks, settled: datetime) -> datetime:
    """Up to where this level can be summed up, when steps before `settled` are counted."""
    sources = [fine_s for tenant in ("", "any") if (fine_s := finer(step_s, tenant)) is not None]
    return floor(min(settled, *(closed_to(fine_s, marks) for fine_s in sources)), step_s)


def kept_from(age: Sequence[int], marks: Marks, before: datetime) -> datetime:
    """From where on levels of one age are to be kept, when they may go before a moment: never what no coarser level has."""
    coarse_s = coarser(age[-1], "")
    return floor(before, age[-1]) if coarse_s is None else floor(min(before, marks[coarse_s].upto), coarse_s)


def cover(since: datetime, until: datetime, most_s: int, tenant: str, marks: Marks) -> list[Part]:
    """What to read of a time: every step in one part. No coarser than `most_s`, except where nothing finer is kept any more:
    there, a span that began before `since` is left out. Finer levels are kept no longer than coarser ones.
    """
    fitting = [step_s for step_s in levels(tenant) if step_s <= most_s]
    begin = marks[fitting[-1]].kept_from
    parts = _cover(max(since, begin), until, fitting, marks)
    for step_s in levels(tenant)[len(fitting) :]:
        end, begin = begin, marks[step_s].kept_from
        parts = [*_cover(max(since, begin), min(end, until), [step_s], marks), *parts]
    return parts


def _cover(since: datetime, until: datetime, steps_s: Sequence[int], marks: Marks) -> list[Part]:
    """The coarsest for its whole closed spans, finer ones for what sticks out on either side, as far as they are kept."""
    if since >= until or not steps_s:
        return []
    *finer_s, step_s = steps_s
    first = _ceil(max(since, marks[step_s].kept_from), step_s)
    last = until if step_s == MINUTE_S else floor(min(until, closed_to(step_s, marks)), step_s)
    if first >= last:
        return _cover(since, until, finer_s, marks)
    return [
        *_cover(since, first, finer_s, marks),
        Part(step_s, first, last),
        *_cover(last, until, finer_s, marks),
    ]


def _ceil(at: datetime, step_s: int) -> datetime:
    return floor(at + timedelta(seconds=step_s, microseconds=-1), step_s)
