"""How new a replica is, told by log positions: it is as fresh as the newest moment whose position it has replayed.

Moments are this process's (time.monotonic()): when a position was asked for. Servers' clocks are never compared with it.
A position is a number for each stream of the log: PostgreSQL's WAL is one, MariaDB and MySQL have one for each domain
or server.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

Position = Mapping[str, int]
_MOST = 600  # positions that are remembered; a replica that is behind them all is too old to be told how much


def postgresql(lsn: str) -> Position:
    """16/B374D848"""
    high, _, low = lsn.partition("/")
    return {"": (int(high, 16) << 32) + int(low, 16)}


def mariadb(gtids: str) -> Position:
    """0-1-100,2-1-7: domain, server, number."""
    triples = [one.strip().split("-") for one in gtids.split(",") if one.strip()]
    return {domain: int(number) for domain, _, number in triples}


def mysql(gtids: str) -> Position:
    """uuid:1-5:7,uuid:1-9. What follows a gap is not counted: whoever waits for it waits for the gap as well."""
    found = {}
    for one in gtids.replace("\n", "").split(","):
        source, _, intervals = one.strip().partition(":")
        if source:
            first, _, last = intervals.split(":")[0].partition("-")
            found[source] = int(last or first)
    return found


def covers(replayed: Position, wanted: Position) -> bool:
    return all(replayed.get(stream, -1) >= number for stream, number in wanted.items())


class Positions:
    """Of a primary: where its log ended at which moments, the newest last."""

    def __init__(self, most: int = _MOST) -> None:
        self._known: deque[tuple[float, Position]] = deque(maxlen=most)

    def add(self, moment: float, position: Position) -> None:
        """position: where the log ended at this moment or later."""
        if self._known and self._known[-1][1] == position:
            self._known.pop()  # nothing was written meanwhile: who has replayed it is as fresh as now
        self._known.append((moment, position))

    def fresh_as_of(self, replayed: Position) -> float | None:
        """The moment before which everything is in a replica that has replayed this; None: too far behind to tell."""
        for moment, position in reversed(self._known):
            if covers(replayed, position):
                return moment
        return None


@dataclass(frozen=True, slots=True)
class Seen:
    """A replica as its last answer showed it. trouble: why it gets no reads, whatever its age."""

    alias: str
    answered_at: float
    fresh_as_of: float | None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds. lag: a replica further behind gets no reads; infinite: however far it is, known or not.
    silence: nor does one that has not answered for so long."""

    lag_s: float
    silence_s: float


def trouble(seen: Seen, now: float, limits: Limits) -> str:
    """Why it gets no reads, in a line; "" when it gets them."""
    if seen.trouble:
        return seen.trouble
    if now - seen.answered_at > limits.silence_s:
        return f"it has not answered for {now - seen.answered_at:.1f} s"
    if limits.lag_s == math.inf:
        return ""
    if seen.fresh_as_of is None:
        return "it is too far behind to tell how much"
    lag_s = now - seen.fresh_as_of
    return f"it is {lag_s:.1f} s behind, more than {limits.lag_s:g} s" if lag_s > limits.lag_s else ""


def has_seen(seen: Seen, since: float | None) -> bool:
    """Whether everything that was committed before `since` is in it."""
    return since is None or (seen.fresh_as_of is not None and seen.fresh_as_of >= since)
