"""Traffic by route and consumer for the admin, of all processes and machines together, kept in Redis: minutes for two
hours, hours for seven days.

    count (each request) → collect (every TRAFFIC_FLUSH_S, where requests are counted) → send (in a thread) → read

While Redis is away what was counted waits, and is added to its minutes later. A batch has a number, so one whose answer
got lost is not added twice.
"""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import structlog
from redis.exceptions import RedisError

from cache_app import connections as store
from cache_app.link import all_good, all_read

from .errors import TrafficUnavailable
from .tally import RETIRED, Tally
from .traffic_backlog import Backlog, Change
from .traffic_report import OTHER, Field, Report, Step, report

log = structlog.get_logger(__name__)

SCRIPT = Path(__file__).with_name("traffic.lua").read_text()
PREFIX = "brain:{traffic}:"  # the tag keeps a batch's keys on one node of a cluster
MINUTE_S, HOUR_S = 60, 3600
_ROWS = 200  # of one script: Redis runs it in a millisecond, and a limit's script may wait behind it
_ROUTES = 10
_MAX_COUNTS = 20_000  # of one interval, in which a million users may come by once
_WARN_S = 30.0


class _Level(NamedTuple):
    """Fields: the most of a hash, before new consumers or routes are counted as "other"."""

    name: str
    step_s: int
    kept_s: int
    most_counts: int
    most_times: int

    def expires_at(self, minute: int) -> int:
        return (minute * MINUTE_S // self.step_s + 1) * self.step_s + self.kept_s


_MINUTES = _Level("m", MINUTE_S, 7_200, 1_000, 300)
_HOURS = _Level("h", HOUR_S, 7 * 86_400, 2_000, 1_000)


class _Batch(NamedTuple):
    number: int
    minute: int
    rows: bytes
    times: bytes


class Traffic:
    """One a process, beside its tally. `count` and `collect` belong to the thread that serves (or to its lock), `send` to
    any other one."""

    def __init__(self, tally: Tally, *, prefix: str = PREFIX) -> None:
        self._tally, self._prefix = tally, prefix
        self._counts: dict[Field, int] = {}
        self._before: dict[str, list[float]] = {}
        self._collected: deque[tuple[int, dict[Field, int], list[Change]]] = deque()
        self._backlog = Backlog()
        self._batches: list[_Batch] = []
        self._key = f"{prefix}added:{uuid.uuid4().hex}"
        self._number = 0
        self._sending = threading.Lock()
        self._warned_at = -_WARN_S

    @property
    def dropped(self) -> int:
        """Requests that are missing in the figures."""
        return self._backlog.dropped

    def count(self, consumer: str, route: str, status: int) -> None:
        """consumer: "" for none; route: "" where none matched."""
        try:
            self._counts[route, consumer, status // 100] += 1
        except KeyError:
            self._first(route, consumer if len(self._counts) < _MAX_COUNTS else OTHER, status // 100)

    def _first(self, route: str, consumer: str, kind: int) -> None:
        self._counts[route, consumer, kind] = self._counts.get((route, consumer, kind), 0) + 1

    def collect(self, wall: float) -> None:
        """Take what was counted since the last time, as of this minute. No I/O."""
        counts, self._counts = self._counts, {}
        changed = list(self._changed())
        if counts or changed:
            self._collected.append((int(wall) // MINUTE_S, counts, changed))

    def _changed(self) -> Iterator[Change]:
        for gone in self._before.keys() - self._tally.times.keys():
            del self._before[gone]
        for route, times in self._tally.times.items():
            before = self._before.get(route)
            if times != before and route != RETIRED:  # what moved there is no news
                now = self._before[route] = list(times)
                yield route, before or [0.0] * len(now), now

    # --- to Redis ---

    def send(self) -> bool:
        """Add all that was collected, in one round trip. False when Redis did not answer; never raises for that."""
        with self._sending:
            while self._collected:
                self._backlog.add(*self._collected.popleft())
            if not self._batches:  # else those first: Redis knows only the last number
                self._batches = self._sealed()
            if not self._batches:
                return True
            try:
                commands = [("EVAL", SCRIPT, 5, *self._arguments(batch)) for batch in self._batches]
                all_good(store.link(store.default_url()).pipeline(commands))
            except (RedisError, OSError) as error:
                self._warn(error)
                return False
            self._batches.clear()
            return True

    def _sealed(self) -> list[_Batch]:
        """The backlog as batches that never change: what was sent may have been added, answer or not."""
        found = []
        for number, minute in self._backlog.take():
            rows = [[_text(key), _text((key[0], OTHER, key[2])), n] for key, n in minute.counts.items()]
            times = [(route, {str(at): n for at, n in some.items()}) for route, some in minute.times.items()]
            for at in range(max(-(-len(rows) // _ROWS), -(-len(times) // _ROUTES))):
                self._number += 1
                some_rows = orjson.dumps(rows[at * _ROWS : (at + 1) * _ROWS])
                some_times = orjson.dumps(dict(times[at * _ROUTES : (at + 1) * _ROUTES]))
                found.append(_Batch(self._number, number, some_rows, some_times))
        return found

    def _arguments(self, batch: _Batch) -> list[Any]:
        keys, last = [self._key], [batch.number, batch.rows, batch.times]
        for level in (_MINUTES, _HOURS):
            keys += _keys(self._prefix, level, batch.minute * MINUTE_S // level.step_s)
            last += [level.expires_at(batch.minute), level.most_counts, level.most_times]
        return [*keys, *last]

    def _warn(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._warned_at >= _WARN_S:
            self._warned_at = now
            log.warning("traffic_not_sent", error=type(error).__name__, batches=len(self._batches))


def read(
    since: float, until: float, wall: float, *, route: str = "", consumer: str = "", prefix: str = PREFIX
) -> Report:
    """The traffic of a time (seconds since the epoch) by minutes while these are kept, else by hours. One round trip.

    The steps that the time begins and ends in are in it as a whole. Raises TrafficUnavailable when Redis does not answer.
    """
    level = _MINUTES if since >= wall - _MINUTES.kept_s else _HOURS
    begin, end = max(since, wall - level.kept_s), min(until, wall + level.step_s)
    numbers = range(int(begin) // level.step_s, math.ceil(end / level.step_s))
    commands = [("HGETALL", key) for number in numbers for key in _keys(prefix, level, number)]
    try:
        found = all_read(store.link(store.default_url()), commands) if commands else []
    except (RedisError, OSError) as error:
        raise TrafficUnavailable from error
    steps = [
        Step(number * level.step_s, _counts(counts), _times(times))
        for number, counts, times in zip(numbers, found[::2], found[1::2], strict=True)
    ]
    return report(steps, level.step_s, route=route, consumer=consumer)


def _keys(prefix: str, level: _Level, number: int) -> list[str]:
    return [f"{prefix}{level.name}:{number}:counts", f"{prefix}{level.name}:{number}:times"]


def _counts(stored: list[bytes]) -> dict[Field, int]:
    return {tuple(orjson.loads(key)): int(count) for key, count in _pairs(stored)}


def _times(stored: list[bytes]) -> dict[str, dict[int, int]]:
    return {
        route.decode(): {int(at): count for at, count in orjson.loads(text).items()}
        for route, text in _pairs(stored)
    }


def _pairs(stored: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(stored[::2], stored[1::2], strict=True)


def _text(key: Field) -> str:
    route, consumer, kind = key
    # A token's subject may be anything: half a surrogate pair is no text.
    shown = consumer[:200].encode("utf-8", "replace").decode()
    return orjson.dumps([route, shown, kind]).decode()
