"""Takes tokens where all processes count together: one EVALSHA on Redis, by the server's clock.

When the store does not answer, the plan's policy decides: "local" (each process counts for itself), "allow"
or "deny".
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
from redis.commands.core import AsyncScript, Script
from redis.exceptions import RedisError

from cache_app import redis as store

from . import bucket
from .conf import conf
from .pipeline import TakeTokens

log = structlog.get_logger(__name__)

SCRIPT = Path(__file__).with_name("token_bucket.lua").read_text()
PREFIX = "brain:limit:"
MAX_LOCAL_BUCKETS = 10_000


class Limiter:
    """One a process. `take` from threads, `atake` on an event loop."""

    def __init__(self, *, prefix: str = PREFIX) -> None:
        self._prefix = prefix
        self._local = LocalBuckets()
        self._script: Script | None = None  # each knows its text's hash, so neither is made for every request
        self._ascript: AsyncScript | None = None
        self._down_until = 0.0  # monotonic: a store that failed is not waited for by every request

    def take(self, ask: TakeTokens) -> bucket.Taken:
        if time.monotonic() >= self._down_until:
            try:
                client = store.client()
                self._script = self._script or Script(client, SCRIPT)
                return _taken(self._script(self._keys(ask), _arguments(ask.limits), client))
            except (RedisError, OSError) as error:
                self._went_down(error)
        return self._without_store(ask)

    async def atake(self, ask: TakeTokens) -> bucket.Taken:
        if time.monotonic() >= self._down_until:
            try:
                async with asyncio.timeout(conf().LIMITER_TIMEOUT_S):
                    client = store.aclient()
                    self._ascript = self._ascript or AsyncScript(client, SCRIPT)
                    return _taken(await self._ascript(self._keys(ask), _arguments(ask.limits), client))
            except (RedisError, OSError) as error:  # TimeoutError is an OSError
                self._went_down(error)
        return self._without_store(ask)

    def _keys(self, ask: TakeTokens) -> list[str]:
        return [self._prefix + limit.key for limit in ask.limits]

    def _went_down(self, error: Exception) -> None:
        self._down_until = time.monotonic() + conf().LIMITER_RETRY_S
        log.warning("limiter_store_down", error=type(error).__name__, retry_s=conf().LIMITER_RETRY_S)

    def _without_store(self, ask: TakeTokens) -> bucket.Taken:
        policy = ask.on_store_down or conf().LIMITER_ON_STORE_DOWN
        if policy == "local":
            return self._local.take(ask.limits, time.monotonic_ns() // 1000)
        return bucket.Taken(policy == "allow")


class LocalBuckets:
    """Buckets of this process alone; the least recently used ones are forgotten, which fills them again."""

    def __init__(self, size: int = MAX_LOCAL_BUCKETS) -> None:
        self._levels: OrderedDict[str, bucket.Level] = OrderedDict()
        self._size = size
        self._guard = threading.Lock()

    def take(self, limits: Sequence[bucket.Limit], now_us: int) -> bucket.Taken:
        with self._guard:
            before = [self._levels.get(limit.key) for limit in limits]
            taken, after = bucket.take(before, limits, now_us)
            for limit, level in zip(limits, after, strict=True):
                if level is not None:
                    self._levels[limit.key] = level
                    self._levels.move_to_end(limit.key)
            while len(self._levels) > self._size:
                self._levels.popitem(last=False)
        return taken


def _arguments(limits: Sequence[bucket.Limit], cost: float = 1.0) -> list[str]:
    return [repr(cost), *(repr(part) for limit in limits for part in (limit.rate, limit.capacity))]


def _taken(reply: Any) -> bucket.Taken:
    return bucket.Taken(reply[0] == 1, tuple(float(level) for level in reply[2:]))
