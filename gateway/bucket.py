"""Token buckets: several limits of one request, all or nothing, leases that never let more through, and the
headers that tell the client about them.

The same arithmetic as token_bucket.lua; one contract test runs both.

A process may hold a *lease*: tokens that have left the bucket before any request used them. A bucket that
filled up meanwhile would let its capacity through and the lease on top, so it knows what is held, and fills
only to capacity - held until every lease is over. Thus tokens + held never exceed the capacity, and in no
stretch of time, however chosen, is more let through than capacity + rate * time: whatever clocks the processes
have, whoever of them dies and whichever answer gets lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

HOLD_US = 2_000_000  # after a grant a lease is over for certain, whatever became of its process
REPORT_US = 500_000  # after a grant, news of it counts; well below HOLD_US, when `held` starts anew
SET_US = (
    10_000_000  # a clock that went back by more was set: a bucket that waited for it would stay empty so long
)
BUDGET = 0.1  # of the capacity, in all leases of the fleet together; what a crash can withhold for HOLD_US


@dataclass(frozen=True, slots=True)
class Limit:
    """rate: tokens per second. capacity: tokens, the largest burst. quota per window_s: what the client is
    told.

    key: the bucket this limit is counted in, for one subject.
    """

    name: str
    rate: float
    capacity: float
    quota: int
    window_s: int
    key: str = ""


@dataclass(frozen=True, slots=True)
class Level:
    """tokens: left in the bucket at the time at_us (microseconds of whichever clock counts). held: out in
    leases, at most; over_us: when the last of them is over for certain."""

    tokens: float
    at_us: int
    held: float = 0.0
    over_us: int = 0


class Ask(NamedTuple):
    """What one call asks of all buckets of a request; the first arguments of token_bucket.lua.

    need: without which nothing is taken. queue: wanted at once, `need` included: what is there of it is granted,
    the need and then units. unit: the cheapest request that waits. lease: on top, whole or not at all, if `spare` stays in every bucket. settled: tokens
    of earlier leases that the caller no longer holds, spent or handed back; back: handed back (needs no lease).
    granted_us: the store's time of the caller's last grant; too long ago, and the report is not believed.
    """

    need: float
    queue: float
    unit: float = 1.0
    lease: float = 0.0
    spare: float = 0.0
    settled: float = 0.0
    back: float = 0.0
    granted_us: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """levels: one a limit, in their order, after the taking; none: nobody counted. granted: tokens, at the
    store's time at_us."""

    admitted: bool
    levels: tuple[float, ...] = ()
    granted: float = 0.0
    at_us: int = 0


def per_window(
    name: str, quota: int, window_s: int, *, capacity: float | None = None, key: str = ""
) -> Limit:
    """`quota` requests every `window_s` seconds, `capacity` of them at once (default: the whole quota)."""
    return Limit(name, quota / window_s, float(quota if capacity is None else capacity), quota, window_s, key)


def take(
    levels: Sequence[Level | None], limits: Sequence[Limit], now_us: int, ask: Ask
) -> tuple[Taken, list[Level | None]]:
    """What is granted, and the levels to store. None: a bucket never used, so it is full.

    A refusal takes nothing. A clock that went back credits nothing; by a little (a failover), no time moves back.
    """
    believed = ask.granted_us - SET_US <= now_us <= ask.granted_us + REPORT_US
    settled, back = (ask.settled, ask.back) if believed else (0.0, 0.0)
    found = [
        _settled(_refill(level, limit, now_us), limit, settled, back)
        for level, limit in zip(levels, limits, strict=True)
    ]
    room = min(level.tokens for level in found)
    if room < ask.need:
        granted = leased = 0.0
    else:
        leased = _lease(found, limits, ask, asked := _whole(ask, room))
        granted = asked + leased
    left = [_without(level, granted, leased, settled) for level in found]
    taken = Taken(room >= ask.need, tuple(level.tokens for level in left), granted, now_us)
    return taken, list(left if granted or settled or back else levels)


def _whole(ask: Ask, room: float) -> float:
    if not ask.need:
        return 0.0
    return ask.need + math.floor((min(ask.queue, room) - ask.need) / ask.unit) * ask.unit


def _lease(found: Sequence[Level], limits: Sequence[Limit], ask: Ask, granted: float) -> float:
    """Only when there is plenty: near empty, and where much is held already, every request is counted alone."""
    plenty = granted >= ask.queue and all(
        level.tokens - granted - ask.lease >= ask.spare and level.held + ask.lease <= limit.capacity * BUDGET
        for level, limit in zip(found, limits, strict=True)
    )
    return ask.lease if plenty else 0.0


def _without(level: Level, granted: float, leased: float, settled: float) -> Level:
    held = level.held + leased
    # Who reports in time and keeps some of its lease keeps it for another while.
    renewed = held > 0 and (leased > 0 or settled > 0)
    over_us = level.at_us + HOLD_US if renewed else level.over_us
    return Level(level.tokens - granted, level.at_us, held, over_us)


def _settled(level: Level, limit: Limit, settled: float, back: float) -> Level:
    held = max(0.0, level.held - settled)
    tokens = max(level.tokens, min(limit.capacity - held, level.tokens + back))
    return Level(tokens, level.at_us, held, level.over_us)


def _refill(level: Level | None, limit: Limit, now_us: int) -> Level:
    if level is None:
        return Level(limit.capacity, now_us)
    if level.at_us > now_us + SET_US:
        level = Level(level.tokens, now_us, level.held, min(level.over_us, now_us + HOLD_US))
    at_us = max(now_us, level.at_us)
    tokens = min(level.tokens, limit.capacity)  # the plan may have been cut since
    leased_us = min(at_us, level.over_us) - level.at_us
    tokens = _filled(tokens, limit.rate, limit.capacity - level.held, leased_us)
    tokens = _filled(tokens, limit.rate, limit.capacity, at_us - max(level.at_us, level.over_us))
    return Level(tokens, at_us, level.held if at_us < level.over_us else 0.0, level.over_us)


def _filled(tokens: float, rate: float, ceiling: float, us: int) -> float:
    if us <= 0 or tokens >= ceiling:
        return tokens
    return min(ceiling, tokens + us / 1000000 * rate)


def retry_after_s(limits: Sequence[Limit], taken: Taken, cost: float = 1.0) -> int:
    """Whole seconds until every bucket holds the cost again; at least 1, as a refused client must wait."""
    return max(1, math.ceil(wait_s(limits, taken.levels, cost)))


def wait_s(limits: Sequence[Limit], levels: Sequence[float], cost: float) -> float:
    """Seconds until every bucket holds the cost; 0.0 when they do."""
    waits = [(cost - level) / limit.rate for limit, level in zip(limits, levels, strict=True)]
    return max(0.0, *waits) if waits else 0.0


def policy_header(limits: Sequence[Limit]) -> str:
    """RateLimit-Policy of draft-ietf-httpapi-ratelimit-headers: `"minute";q=60;w=60`."""
    return ", ".join(f'"{limit.name}";q={limit.quota};w={limit.window_s}' for limit in limits)


def state_header(limits: Sequence[Limit], taken: Taken) -> str:
    """RateLimit: r tokens are left now, and the bucket is full again in t seconds."""
    items = []
    for limit, level in zip(limits, taken.levels, strict=True):
        full_s = math.ceil((limit.capacity - level) / limit.rate)
        items.append(f'"{limit.name}";r={max(0, math.floor(level))};t={max(0, full_s)}')
    return ", ".join(items)
