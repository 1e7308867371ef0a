"""Token buckets: several limits of one request, all or nothing, and the headers that tell the client about
them.

The same arithmetic as token_bucket.lua; one contract test runs both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


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
    """tokens: left in the bucket at the time at_us (microseconds of whichever clock counts)."""

    tokens: float
    at_us: int


@dataclass(frozen=True, slots=True)
class Taken:
    """The answer to TakeTokens. levels: one a limit, in their order, after the taking."""

    admitted: bool
    levels: tuple[float, ...] = ()


def per_window(
    name: str, quota: int, window_s: int, *, capacity: float | None = None, key: str = ""
) -> Limit:
    """`quota` requests every `window_s` seconds, `capacity` of them at once (default: the whole quota)."""
    return Limit(name, quota / window_s, float(quota if capacity is None else capacity), quota, window_s, key)


def take(
    levels: Sequence[Level | None], limits: Sequence[Limit], now_us: int, cost: float = 1.0
) -> tuple[Taken, list[Level | None]]:
    """What is admitted, and the levels to store. None: a bucket never used, so it is full.

    A refusal stores nothing. A clock that went back (a failover) credits nothing and moves no time back.
    """
    refilled = [_refill(level, limit, now_us) for level, limit in zip(levels, limits, strict=True)]
    if any(level.tokens < cost for level in refilled):
        return Taken(False, tuple(level.tokens for level in refilled)), list(levels)
    left: list[Level | None] = [Level(level.tokens - cost, level.at_us) for level in refilled]
    return Taken(True, tuple(level.tokens - cost for level in refilled)), left


def _refill(level: Level | None, limit: Limit, now_us: int) -> Level:
    if level is None:
        return Level(limit.capacity, now_us)
    at_us = max(now_us, level.at_us)
    return Level(min(limit.capacity, level.tokens + (at_us - level.at_us) / 1000000 * limit.rate), at_us)


def retry_after_s(limits: Sequence[Limit], taken: Taken, cost: float = 1.0) -> int:
    """Whole seconds until every bucket holds the cost again; at least 1, as a refused client must wait."""
    waits = [(cost - level) / limit.rate for limit, level in zip(limits, taken.levels, strict=True)]
    return max(1, math.ceil(max(waits, default=0.0)))


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
