"""Statistics by minute, counted from the history: steps since the last one counted → tallies → rows.

The leader of the reconcilers counts; no statement of a worker or of an enqueue knows of it. The last step that is counted
stands in a row that moves in the transaction of the counts, so after kill -9 the next leader goes on from there, and
nothing is counted twice or left out. Minutes become hours, hours days; only this module writes `Rollup`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import structlog
from django.db import transaction
from django.db.models import Q

from . import clock
from .conf import conf
from .histograms import COUNTS, Tally, from_json, to_json
from .models import Lease, Rollup
from .statements import counting

log = structlog.get_logger(__name__)

NAME = "rollups"
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
ALL_TIME_S = 0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_EVERY_S = 5.0  # between two counts; also what a step has to settle where the database cannot say
# A transaction that stays open for longer between its step and its commit holds the statistics up no more: its steps are
# not counted. Without an end, somebody's report of an hour in the same PostgreSQL would stop them for an hour.
_PATIENCE_S = 60.0
_FRESH_S = _PATIENCE_S + 2 * _EVERY_S  # longer ago, and the last count says nothing about what may be deleted
SETTLE_S = _FRESH_S + _PATIENCE_S  # what ended before that is counted, as long as the last count is fresh
_STEPS = 5_000  # in one statement
_LOOK_S = 0.5  # of counting, and of making hours and days, at one look; more is left to the next one
_CASES = 50  # rows in one update: it has a CASE for each of them and each column
_ROWS = 500  # in one statement, when rows are written or thinned out


class Key(NamedTuple):
    """Whose row it is. step_s: length of the span; at: where it begins."""

    step_s: int
    at: datetime
    queue: str
    name: str
    tenant: str


Tallies = dict[Key, Tally]


class Counter:
    """One worker's, which counts while it leads."""

    def __init__(self) -> None:
        self._mark: counting.Mark | None = None
        self._marked_at = 0.0
        self._level_at: float | None = None  # all that was there at this moment is counted

    def look(self) -> bool:
        """Count what has settled. Whether all is counted that ended SETTLE_S ago, so that its jobs may be deleted."""
        if not conf().ROLLUPS:
            return True
        now = time.monotonic()
        if self._mark is None:
            self._set_mark(now)
        elif now - self._marked_at >= _EVERY_S and self._count(self._mark, now):
            self._level_at = self._marked_at
            self._set_mark(time.monotonic())
        # Another may have led meanwhile: what was level an hour ago says nothing.
        return self._level_at is not None and now - self._level_at < _FRESH_S

    def _set_mark(self, now: float) -> None:
        self._mark, self._marked_at = counting.mark(), now

    def _count(self, mark: counting.Mark, now: float) -> bool:
        """Whether it came to the mark."""
        is_patient = now - self._marked_at < _PATIENCE_S
        after = position()
        while after < mark.event:
            end = counting.part(after, mark.event, _STEPS)
            is_late = time.monotonic() - now > _LOOK_S
            if is_late or (is_patient and not counting.is_settled(after, end, mark.horizon)):
                return False
            after = count_part(after, end)
        return True


def position() -> int:
    """The last step that is counted; 0 before the first."""
    found = Lease.objects.filter(name=NAME).values_list("position", flat=True).first()
    return int(found or 0)


def count_part(after: int, upto: int) -> int:
    """Count the steps with ids in (after, upto], and return where the position stands then.

    When another leader has counted them meanwhile, nothing is written.
    """
    tallies = tally(counting.count(after, upto))  # before the transaction: SQLite has one writer at a time
    with transaction.atomic():
        if not _advance(after, upto):
            return position()
        _add(tallies)
    return upto


def tally(counted: Iterable[counting.Counted]) -> Tallies:
    """By minute, and of all time."""
    tallies: Tallies = {}
    for row in counted:
        at = EPOCH + timedelta(minutes=row.minute)
        for key in (
            Key(MINUTE_S, at, row.queue, row.name, row.tenant),
            Key(ALL_TIME_S, EPOCH, row.queue, row.name, ""),
        ):
            tallies.setdefault(key, Tally()).note(row.state, row.bucket, row.steps, row.total_s)
    return tallies


def compact() -> int:
    """Make hours of old minutes and days of old hours, and delete old days, for a bounded time. Returns how many rows went."""
    began, gone = time.monotonic(), 0
    while part := _compact_part():
        gone += part
        if time.monotonic() - began > _LOOK_S:
            break
    return gone


def _compact_part() -> int:
    now = clock.now()
    gone = _coarsen(MINUTE_S, HOUR_S, now - timedelta(seconds=conf().ROLLUP_MINUTES_S))
    gone += _coarsen(HOUR_S, DAY_S, now - timedelta(seconds=conf().ROLLUP_HOURS_S))
    old = Rollup.objects.filter(step_s=DAY_S, at__lt=now - timedelta(seconds=conf().ROLLUP_DAYS_S))
    ids = list(old.order_by("at").values_list("id", flat=True)[:_ROWS])
    return gone + (Rollup.objects.filter(id__in=ids).delete()[0] if ids else 0)


def floor(at: datetime, step_s: int) -> datetime:
    """Where the span begins that this moment is in."""
    return EPOCH + timedelta(seconds=(at - EPOCH).total_seconds() // step_s * step_s)


def tally_of(row: Rollup) -> Tally:
    counts = {name: getattr(row, name) for name in COUNTS}
    return Tally(
        **counts, wait=from_json(row.wait), wait_s=row.wait_s, run=from_json(row.run), run_s=row.run_s
    )


def _advance(before: int, after: int) -> bool:
    """The first statement of its transaction: the row's lock keeps a second leader out."""
    mine = Lease.objects.filter(name=NAME, position=str(before) if before else "")
    if mine.update(position=str(after)):
        return True
    if before or not Lease.objects.get_or_create(name=NAME, defaults={"until": clock.now()})[1]:
        return False
    return bool(mine.update(position=str(after)))


def _coarsen(fine_s: int, coarse_s: int, before: datetime) -> int:
    """Only whole coarse spans that end before then; a row that comes late is added when it has come."""
    with transaction.atomic():
        old = Rollup.objects.filter(step_s=fine_s, at__lt=floor(before, coarse_s)).order_by("at", "id")
        if not old.exists():  # SQLite: nothing to write, no lock
            return 0
        rows = list(old.select_for_update()[:_ROWS])
        tallies: Tallies = {}
        for row in rows:
            key = Key(coarse_s, floor(row.at, coarse_s), row.queue, row.name, row.tenant)
            tallies.setdefault(key, Tally()).add(tally_of(row))
        _add(tallies)
        Rollup.objects.filter(id__in=[row.id for row in rows]).delete()
    return len(rows)


def _add(tallies: Mapping[Key, Tally]) -> None:
    """In the caller's transaction."""
    keys = sorted(tallies)
    for start in range(0, len(keys), _ROWS):
        _put([(key, tallies[key]) for key in keys[start : start + _ROWS]])


def _put(parts: Sequence[tuple[Key, Tally]]) -> None:
    standing = _standing([key for key, _ in parts])
    fresh: list[Rollup] = []
    changed: list[Rollup] = []
    for key, tally in parts:
        row = standing.get(key)
        if row is not None:
            tally.add(tally_of(row))
        (fresh if row is None else changed).append(_row(key, tally, row))
    if fresh:
        Rollup.objects.bulk_create(fresh)
    if changed:
        Rollup.objects.bulk_update(changed, [*COUNTS, "wait", "wait_s", "run", "run_s"], batch_size=_CASES)


def _standing(keys: Sequence[Key]) -> dict[Key, Rollup]:
    spans = Q()
    for step_s in {key.step_s for key in keys}:
        of_step = [key for key in keys if key.step_s == step_s]
        spans |= Q(
            step_s=step_s,
            at__in={key.at for key in of_step},
            queue__in={key.queue for key in of_step},
            name__in={key.name for key in of_step},
        )
    wanted = set(keys)
    rows = Rollup.objects.select_for_update().filter(spans).order_by("id")
    found = {Key(row.step_s, row.at, row.queue, row.name, row.tenant): row for row in rows}
    return {key: row for key, row in found.items() if key in wanted}


def _row(key: Key, tally: Tally, row: Rollup | None) -> Rollup:
    row = row or Rollup(**key._asdict())
    for name in (*COUNTS, "wait_s", "run_s"):
        setattr(row, name, getattr(tally, name))
    row.wait, row.run = to_json(tally.wait), to_json(tally.run)
    return row
