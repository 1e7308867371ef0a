"""Get or load: key → store → (rebuild lock) → loader → store. One flow for sync and async callers.

hit                                 the entry
miss                                load, store, answer
miss, lock                          one caller loads, the others wait for it and read again
Redis down, ON_STORE_DOWN="load"    load and answer, nothing is stored; "raise": the caller gets redis' error
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis
import structlog

from . import codec, stats
from .conf import conf
from .connections import aclient, client
from .locks import CacheLock, LockTimeout
from .steps import Steps

log = structlog.get_logger(__name__)
_logged: dict[str, float] = {}  # event → monotonic time of its last line


@dataclass(frozen=True, slots=True)
class Cached:
    """value, and where it came from: hit is False for the caller whose call had to wait for a loader."""

    value: Any
    hit: bool
    age_s: float  # since it was stored
    ttl_s: float | None  # left to live; None = for ever; 0.0 = it could not be stored


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a cached function. load: the function with its arguments applied."""

    function: str
    key: str
    ttl_s: float | None
    lock: bool
    load: Callable[[], Any]


class StoreDown(Exception):
    """Redis failed before a loader ran; __cause__ is its error."""


def fetch(call: Call) -> Steps:
    try:
        return (yield from _through_store(call))
    except StoreDown as down:
        _store_failed(call, down.__cause__)
        return Cached((yield from _load(call)).value, hit=False, age_s=0.0, ttl_s=0.0)


def _through_store(call: Call) -> Steps:
    found = yield from _read(call)
    if found is not None:
        stats.count(call.function, "hits")
        return found
    stats.count(call.function, "misses")
    if not call.lock:
        return (yield from _rebuild(call))
    try:
        yield from _reaching_store("acquire")
    except LockTimeout:
        stats.count(call.function, "lock_timeouts")
        return (yield from _rebuild(call))
    try:
        found = yield from _read(call)
        if found is not None:
            stats.count(call.function, "coalesced")
            return Cached(found.value, hit=False, age_s=found.age_s, ttl_s=found.ttl_s)
        return (yield from _rebuild(call))
    finally:
        yield from _released(call)


def _read(call: Call) -> Steps:
    data = yield from _reaching_store("get")
    if data is None:
        return None
    entry = codec.decode(data)
    if entry is None:
        stats.count(call.function, "corrupt")
        _log_rarely("cache_entry_corrupt", function=call.function)
        return None
    age_s = max(_now() - entry.stored_at, 0.0)
    return Cached(entry.value, True, age_s, None if entry.ttl_s is None else max(entry.ttl_s - age_s, 0.0))


def _rebuild(call: Call) -> Steps:
    entry, data = yield from _encoded(call)
    try:
        yield "put", data
    except redis.RedisError as error:
        _store_failed(call, error)
        return Cached(entry.value, hit=False, age_s=0.0, ttl_s=0.0)
    return Cached(entry.value, hit=False, age_s=0.0, ttl_s=entry.ttl_s)


def _load(call: Call) -> Steps:
    entry, _ = yield from _encoded(call)
    return entry


def _encoded(call: Call) -> Generator[Any, Any, tuple[codec.Entry, bytes]]:
    """The loaded value as a hit will give it: a tuple that turns into a list does so in the first call already."""
    stats.count(call.function, "loads")
    try:
        value = yield ("load",)
    except Exception:
        stats.count(call.function, "load_errors")
        raise
    try:
        data = codec.encode(value, stored_at=_now(), ttl_s=call.ttl_s)
    except codec.Uncacheable as error:
        raise codec.Uncacheable(f"{call.function} returned what JSON cannot hold: {error}") from error
    entry = codec.decode(data)
    assert entry is not None  # noqa: S101  (encode wrote it)
    return entry, data


def _released(call: Call) -> Steps:
    try:
        if not (yield ("release",)):
            _log_rarely(
                "cache_rebuild_outlived_its_lock", function=call.function, lease_s=conf().REBUILD_LEASE_S
            )
    except redis.RedisError as error:  # the lease ends by itself; the caller has its value
        stats.count(call.function, "store_errors")
        _log_rarely("cache_store_down", function=call.function, error=type(error).__name__)


def _reaching_store(verb: str) -> Steps:
    try:
        return (yield (verb,))
    except redis.RedisError as error:
        raise StoreDown from error


def _store_failed(call: Call, error: BaseException | None) -> None:
    stats.count(call.function, "store_errors")
    if conf().ON_STORE_DOWN == "raise" and error is not None:
        raise error
    _log_rarely("cache_store_down", function=call.function, error=type(error).__name__)


def _now() -> float:
    return datetime.now(UTC).timestamp()


def _log_rarely(event: str, **fields: Any) -> None:
    now = time.monotonic()
    if now - _logged.get(event, -1e9) >= conf().LOG_EVERY_S:
        _logged[event] = now
        log.warning(event, **fields)


def _rebuild_lock(call: Call) -> CacheLock:
    limits = conf()
    return CacheLock(f"rebuild:{call.key}", ttl_s=limits.REBUILD_LEASE_S, wait_s=limits.REBUILD_WAIT_S)


def _milliseconds(ttl_s: float | None) -> int | None:
    return None if ttl_s is None else max(int(ttl_s * 1000), 1)


class Direct:
    """The steps done by this thread."""

    def __init__(self, call: Call) -> None:
        self.call, self.lock = call, _rebuild_lock(call)

    def perform(self, step: tuple[Any, ...]) -> Any:
        match step:
            case ("get",):
                return client().get(self.call.key)
            case "put", data:
                return client().set(self.call.key, data, px=_milliseconds(self.call.ttl_s))
            case ("load",):
                return self.call.load()
            case ("acquire",):
                return self.lock.acquire()
            case ("release",):
                return self.lock.release()
        raise AssertionError(step)


class Awaited:
    """The same steps on the event loop, natively: no thread is used."""

    def __init__(self, call: Call) -> None:
        self.call, self.lock = call, _rebuild_lock(call)

    async def perform(self, step: tuple[Any, ...]) -> Any:
        match step:
            case ("get",):
                return await aclient().get(self.call.key)
            case "put", data:
                return await aclient().set(self.call.key, data, px=_milliseconds(self.call.ttl_s))
            case ("load",):
                return await self.call.load()
            case ("acquire",):
                return await self.lock.aacquire()
            case ("release",):
                return await self.lock.arelease()
        raise AssertionError(step)
