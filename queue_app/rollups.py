"""Statistics by minute, counted from the history: steps since the last one counted → tallies → rows of minutes and of all time.

The leader of the reconcilers counts; no statement of a worker or of an enqueue knows of it. The last step that is counted
stands in a row that moves in the transaction of the counts, so after kill -9 the next leader goes on from there, and
nothing is counted twice or left out. Folding makes the coarser levels of the minutes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import transaction

from . import clock, folding, rollup_rows
from .conf import conf
from .histograms import Tally
from .levels import ALL_TIME_S as ALL_TIME_S
from .levels import EPOCH as EPOCH
from .levels import MINUTE_S as MINUTE_S
from .levels import Key
from .levels import floor as floor
from .models import Lease
from .rollup_rows import NAME as NAME
from .rollup_rows import Tallies
from .statements import counting

_EVERY_S = 5.0  # between two counts; also what a step has to settle where the database cannot say
# A transaction that stays open for longer between its step and its commit holds the statistics up no more: its steps are
# not counted. Without an end, somebody's report of an hour in the same PostgreSQL would stop them for an hour.
_PATIENCE_S = 60.0
_FRESH_S = _PATIENCE_S + 2 * _EVERY_S  # longer ago, and the last count says nothing about what may be deleted
SETTLE_S = _FRESH_S + _PATIENCE_S  # what ended before that is counted, as long as the last count is fresh
_STEPS = 5_000  # in one statement
_LOOK_S = 0.5  # of counting at one look; more is left to the next one


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
            folding.fold(settled())
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
        rollup_rows.carry(tallies)
    return upto


def tally(counted: Iterable[counting.Counted]) -> Tallies:
    """By minute and of all time, of all tenants; by minute of each tenant."""
    tallies: Tallies = {}
    for row in counted:
        at = EPOCH + timedelta(minutes=row.minute)
        keys = [
            Key(MINUTE_S, at, row.queue, row.name, ""),
            Key(ALL_TIME_S, EPOCH, row.queue, row.name, ""),
        ]
        if row.tenant:
            keys.append(keys[0]._replace(tenant=row.tenant))
        for key in keys:
            tallies.setdefault(key, Tally()).note(row.state, row.bucket, row.steps, row.total_s)
    return tallies


def settled() -> datetime:
    """Steps before it are counted, when the last count came to its mark; the few that are not are added as late ones."""
    return clock.now() - timedelta(seconds=SETTLE_S)


def compact() -> int:
    """Sum up what is over and delete what is old, for a bounded time. Returns how many rows were touched."""
    return folding.fold(settled()) + folding.expire()


def _advance(before: int, after: int) -> bool:
    """The first statement of its transaction: the row's lock keeps a second leader out."""
    mine = Lease.objects.filter(name=NAME, position=str(before) if before else "")
    if mine.update(position=str(after)):
        return True
    if before or not Lease.objects.get_or_create(name=NAME, defaults={"until": clock.now()})[1]:
        return False
    return bool(mine.update(position=str(after)))
