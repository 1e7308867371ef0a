"""A lock over processes and hosts: `with cache_lock("name"):` or `async with`, on Redis, with an owner and a fence.

It spares double work; it does not make double work impossible. A holder that stops for longer than the lease (a long
garbage collection, a suspended machine) goes on while the next one works. Where that would do damage, hand
`lock.fence` to whatever is written to and let it refuse a lower number than it has seen.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Self

import redis
import structlog

from .conf import conf
from .connections import aclient, client, key_prefix
from .steps import adrive, drive

log = structlog.get_logger(__name__)

# The fence is the server's clock in microseconds, or one more than the last: it needs no key that is kept for ever per
# name, and goes on rising after a restart without data. KEYS: lock, fence, wake. ARGV: token, lease in ms.
_ACQUIRE = """
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return {0, redis.call('PTTL', KEYS[1])}
end
redis.call('DEL', KEYS[3])
local now = redis.call('TIME')
local fence = math.max(tonumber(redis.call('GET', KEYS[2]) or 0) + 1, now[1] * 1000000 + now[2])
redis.call('SET', KEYS[2], string.format('%.0f', fence), 'PX', 3600000)
return {1, fence}
"""
# Only the owner's token frees the lock; then one waiter is woken, the one that has waited longest (BLPOP's order).
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('RPUSH', KEYS[3], 1)
redis.call('PEXPIRE', KEYS[3], 5000)
return 1
"""
_PAUSE_S = 0.05  # where no connection is free to wait on
_Steps = Generator[tuple[Any, ...], Any, Any]


class LockTimeout(TimeoutError):
    """Another holder kept the lock for longer than `wait_s`."""


class LockLost(RuntimeError):
    """The lease ended before the work did: somebody else may have worked at the same time."""


def cache_lock(name: str, *, ttl_s: float = 30.0, wait_s: float = 10.0) -> CacheLock:
    """A lock that frees itself after ttl_s, waited for up to wait_s (0 = try once, then LockTimeout).

    Leaving the block raises LockLost when the lease ran out inside it, unless the block raises already.
    """
    return CacheLock(name, ttl_s=ttl_s, wait_s=wait_s)


class CacheLock:
    """`fence` rises with every grant of this name, over all processes. Not re-entrant; make one per use."""

    def __init__(self, name: str, *, ttl_s: float, wait_s: float) -> None:
        if ttl_s < 0.001 or wait_s < 0:
            raise ValueError("a lock needs ttl_s of at least 0.001 and wait_s of at least 0")
        self.name, self.ttl_s, self.wait_s = name, ttl_s, wait_s
        self.fence: int | None = None
        self._token: str | None = None

    def acquire(self) -> Self:
        return drive(self._acquire(time.monotonic), _Direct(self).perform)

    async def aacquire(self) -> Self:
        return await adrive(self._acquire(time.monotonic), _Awaited(self).perform)

    def release(self) -> bool:
        """False: the lease had ended, and what others hold now was left alone."""
        return drive(self._release(), _Direct(self).perform)

    async def arelease(self) -> bool:
        return await adrive(self._release(), _Awaited(self).perform)

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._left(self.release(), error)

    async def __aenter__(self) -> Self:
        return await self.aacquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._left(await self.arelease(), error)

    def _left(self, owned: bool, error: BaseException | None) -> None:
        if owned:
            return
        log.warning("lock_lost", lock=self.name, ttl_s=self.ttl_s)
        if error is None:
            raise LockLost(f"lock {self.name!r}: the lease of {self.ttl_s} s ended before the work did")

    def _acquire(self, clock: Callable[[], float]) -> _Steps:
        if self._token is not None:
            raise RuntimeError(f"lock {self.name!r} is held by this object already")
        token, deadline = uuid.uuid4().hex, clock() + self.wait_s
        while True:
            try:
                granted, number = yield "run", _ACQUIRE, token, int(self.ttl_s * 1000)
            except (asyncio.CancelledError, KeyboardInterrupt):
                yield "run", _RELEASE, token  # the grant may be under way: nobody would ever free it
                raise
            if granted:
                self._token, self.fence = token, int(number)
                return self
            left_s = deadline - clock()
            if left_s <= 0:
                raise LockTimeout(f"lock {self.name!r} was not free within {self.wait_s} s")
            # Half a command's timeout at most: a wake-up that died with the waiter it went to costs the others no
            # more, and the socket never times out under BLPOP.
            wait_s = min(left_s, max(number, 0) / 1000, conf().COMMAND_TIMEOUT_S / 2)
            try:
                yield "wait", max(wait_s, 0.005)  # to BLPOP, 0 means for ever
            except redis.ConnectionError:
                yield "pause", min(left_s, _PAUSE_S)

    def _release(self) -> _Steps:
        if self._token is None:
            raise RuntimeError(f"lock {self.name!r} is not held by this object")
        token, self._token = self._token, None
        return bool((yield "run", _RELEASE, token))

    def _keys(self) -> list[str]:
        # Braces: one slot in a cluster. Not below `prefix:`: clearing the cache leaves locks and fences alone.
        stem = f"{key_prefix()}.lock:{{{self.name}}}"
        return [stem, f"{stem}:fence", f"{stem}:wake"]


class _Direct:
    """The steps done by this thread."""

    def __init__(self, lock: CacheLock) -> None:
        self.keys = lock._keys()

    def perform(self, step: tuple[Any, ...]) -> Any:
        match step:
            case "run", script, *arguments:
                return client().eval(script, 3, *self.keys, *arguments)
            case "wait", seconds:
                return client(pool="wait").blpop([self.keys[2]], timeout=seconds)
            case "pause", seconds:
                return time.sleep(seconds)
        raise AssertionError(step)


class _Awaited:
    """The same steps on the event loop."""

    def __init__(self, lock: CacheLock) -> None:
        self.keys = lock._keys()

    async def perform(self, step: tuple[Any, ...]) -> Any:
        match step:
            case "run", script, *arguments:
                return await aclient().eval(script, 3, *self.keys, *arguments)
            case "wait", seconds:
                return await aclient(pool="wait").blpop([self.keys[2]], timeout=seconds)
            case "pause", seconds:
                return await asyncio.sleep(seconds)
        raise AssertionError(step)
