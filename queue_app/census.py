"""How many open jobs each queue has in each state, and since when its oldest due one waits.

few → counted now; where counting takes long → as the leader of the reconcilers has counted it a moment ago

A million jobs that wait take a second to count, and pages that are looked at ask every five. Once a count was slow, this process
reads the leader's, which the cache keeps; the leader counts as long as somebody reads. Without a leader, or a cache, whoever
asks counts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import structlog
from django.core.cache import cache
from django.db.models import Count, Max, Min, Q
from django.db.models.functions import Coalesce

from . import clock
from .clock import Clock
from .conditions import backlog, is_due
from .models import Job
from .states import State

log = structlog.get_logger(__name__)

SLOW_S = 0.1  # of a count; some 100,000 jobs
EVERY_S = 10.0  # between two counts of the leader's, at least
_SHARE = 10  # times what a count takes pass until the next one
KEPT_S = 60.0  # of a count in the cache: a leader that is late is better than every page counting
_ASKED_S = 60.0  # after the last reader the leader stops
_REMEMBERED_S = 600.0  # until a process tries again by itself whether counting is fast
_KEY, _ASKED = "queue:census", "queue:census:asked"
_OVER = (State.COMPLETED.value, State.CANCELLED.value)


class Due(NamedTuple):
    """since: when its time came. now: both by the database's clock, as this host's may be minutes off, and would be an alert."""

    since: datetime
    now: datetime

    @property
    def waited_s(self) -> float:
        return max(0.0, (self.now - self.since).total_seconds())


@dataclass(frozen=True, slots=True)
class Census:
    """jobs: (queue, state, how many). due: of each queue that has due jobs the oldest one's."""

    jobs: list[tuple[str, str, int]]
    due: dict[str, Due]


_slow_until = float("-inf")


def taken() -> Census:
    """Counted now, or a moment ago."""
    global _slow_until
    if time.monotonic() < _slow_until:
        kept = _read()
        if kept is not None:
            return kept
    began = time.monotonic()
    found = count()
    if time.monotonic() - began > SLOW_S:
        _slow_until = time.monotonic() + _REMEMBERED_S
        _write(found)
    return found


def count() -> Census:
    """Two statements: the first reads an index, the second the rows that wait."""
    is_over = Q(state__in=_OVER)  # as the condition of the partial index says it
    open_ = Job.objects.filter(~is_over).order_by().values_list("queue", "state").annotate(n=Count("*"))
    return Census(list(open_), oldest_due())


def oldest_due(*, but: Q | None = None) -> dict[str, Due]:
    """Of each queue that has due jobs. but: jobs that do not count."""
    due = backlog().filter(is_due()).order_by().values_list("queue")
    due = due.exclude(but) if but else due
    oldest = due.annotate(since=Min(Coalesce("run_after", "created_at")), now=Max(Clock()))
    return {queue: Due(since, now) for queue, since, now in oldest}


class Keeper:
    """The leader's: counts for those that read, while there are any."""

    def __init__(self) -> None:
        self._next_at = float("-inf")

    def look(self) -> None:
        began = time.monotonic()
        if began < self._next_at:
            return
        self._next_at = began + EVERY_S
        if not _is_asked():
            return
        found = count()
        took_s = time.monotonic() - began
        self._next_at = began + max(EVERY_S, took_s * _SHARE)
        _write(found)


def _read() -> Census | None:
    try:
        kept: dict[str, Any] | None = cache.get(_KEY)
        if kept is None:
            return None
        cache.set(_ASKED, True, _ASKED_S)
    except Exception as error:  # noqa: BLE001  (whatever the cache is and fails with: the database knows as well)
        log.debug("census_not_read", error=type(error).__name__)
        return None
    now = clock.now()
    due = {queue: Due(datetime.fromisoformat(since), now) for queue, since in kept["since"].items()}
    return Census([(queue, state, jobs) for queue, state, jobs in kept["jobs"]], due)


def _write(found: Census) -> None:
    since = {queue: due.since.isoformat() for queue, due in found.due.items()}
    try:
        cache.set(_KEY, {"jobs": [list(row) for row in found.jobs], "since": since}, KEPT_S)
        cache.set(_ASKED, True, _ASKED_S)
    except Exception as error:  # noqa: BLE001  (the same)
        log.debug("census_not_kept", error=type(error).__name__)


def _is_asked() -> bool:
    try:
        return bool(cache.get(_ASKED))
    except Exception as error:  # noqa: BLE001  (the same)
        log.debug("census_not_read", error=type(error).__name__)
        return False
