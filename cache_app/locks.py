"""A lock over processes and hosts: `with cache_lock("name"):` or `async with`, with an owner, a lease and a fence.

    attempt → granted, or refused → a place in the queue → told → attempt …   → work (the watchdog renews) → free

It spares double work; it does not make double work impossible. A holder that stops for longer than the lease (a long
garbage collection, a suspended machine) goes on while the next one works. Where that would do damage, hand
`lock.fence` to whatever is written to and let it refuse a lower number than it has seen.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import structlog

from .lock_rules import Answer, Ask
from .lock_steps import Awaited, Direct, Turns
from .lock_waits import new_token
from .lock_watchdog import LoopRenewal, Renewal, watchdog
from .redis_locks import RedisTurns
from .steps import Steps, adrive, drive

if TYPE_CHECKING:
    from .redis import BrainRedisCache

log = structlog.get_logger(__name__)

MAX_HOLD_S = 600.0  # of a renewed lock that does not say
_OUTAGE_PAUSE_S = 0.1
_LOOK_S = 60.0  # a waiter looks again after this time, however long the lease is


class LockTimeout(TimeoutError):
    """Another holder kept the lock for longer than `wait_s`."""


class LockLost(RuntimeError):
    """The lease ended before the work did: somebody else may have worked at the same time."""


def cache_lock(
    name: str,
    *,
    ttl_s: float = 30.0,
    wait_s: float | None = 10.0,
    blocking: bool = True,
    fifo: bool = False,
    renew: bool = False,
    max_hold_s: float | None = None,
    alias: str | None = None,
) -> CacheLock:
    """A lock that frees itself after ttl_s, waited for up to wait_s (None = for ever), else LockTimeout.

    blocking=False is wait_s=0: one attempt. fifo: granted in the order of arrival, over all processes; all who use the
    name say the same. renew: the lease is extended while the holder lives, until max_hold_s (default MAX_HOLD_S, at
    least ttl_s). alias: whose CACHES backend keeps it; None = as backends.backend().

    Leaving the block raises LockLost when the lease ran out inside it, unless the block raises already.
    """
    from . import backends  # it stands on the backends, and they on this module

    lock: CacheLock = backends.backend(alias).lock(
        name,
        ttl_s=ttl_s,
        wait_s=wait_s,
        blocking=blocking,
        fifo=fifo,
        renew=renew,
        max_hold_s=max_hold_s,
    )
    return lock


def redis_lock(cache: BrainRedisCache, name: str, **options: Any) -> CacheLock:
    """A lock on the servers of this cache. options: as `cache_lock`, without alias."""
    return CacheLock(name, RedisTurns(cache.servers, cache.key_prefix, checked(name)), **options)


def checked(name: str) -> str:
    if not name or name.startswith("}"):
        raise ValueError("a lock's name is not empty and does not begin with '}'")
    return name


class CacheLock:
    """`fence` rises with every grant of this name, over all processes. Not re-entrant; make one per use."""

    def __init__(
        self,
        name: str,
        turns: Turns,
        *,
        ttl_s: float = 30.0,
        wait_s: float | None = 10.0,
        blocking: bool = True,
        fifo: bool = False,
        renew: bool = False,
        max_hold_s: float | None = None,
    ) -> None:
        wait_s = math.inf if wait_s is None else wait_s
        if not 0.001 <= ttl_s < math.inf or not wait_s >= 0:
            raise ValueError("a lock needs ttl_s of at least 0.001 and wait_s of at least 0")
        if max_hold_s is not None and not (renew and max_hold_s >= ttl_s):
            raise ValueError("max_hold_s goes with renew=True and is at least ttl_s")
        self.name, self.ttl_s, self.wait_s, self.fifo = name, ttl_s, wait_s if blocking else 0.0, fifo
        self.max_hold_s = (max_hold_s or max(MAX_HOLD_S, ttl_s)) if renew else None
        self.fence: int | None = None
        self._turns = turns
        self._token: str | None = None
        self._pid = 0
        self._since = self._ends = (
            0.0  # monotonic; of the grant and of its lease, as far as this process knows
        )
        self._was_lost = False
        self._renewal: Renewal | None = None

    # --- for threads -------------------------------------------------------------------------------------------------
    def acquire(self) -> Self:
        """Raises LockTimeout, and the store's own error where it is down (docs/cache.md)."""
        drive(self._acquire(), Direct(self._turns).perform)
        if self.max_hold_s is not None:
            self._renewal = watchdog.watch(self, self._since + self.ttl_s / 3)
        return self

    def try_acquire(self) -> bool:
        """One attempt, whatever wait_s says. False: somebody holds it, or stands before us in the queue."""
        granted = drive(self._try(), Direct(self._turns).perform)
        if granted and self.max_hold_s is not None:
            self._renewal = watchdog.watch(self, self._since + self.ttl_s / 3)
        return bool(granted)

    def release(self) -> bool:
        """False: the lease had ended, and what others hold now was left alone."""
        return self._freed(self._turns.free(self._let_go()))

    def extend(self, ttl_s: float | None = None) -> None:
        """The lease ends ttl_s from now (default: its own ttl_s). Raises LockLost when it has ended already."""
        token, began = self._held_token(), time.monotonic()
        self._extended(self._turns.extend(token, ttl_s or self.ttl_s), began + (ttl_s or self.ttl_s))

    def locked(self) -> bool:
        """Whether anybody holds the name now."""
        return bool(self._turns.owner())

    def owned(self) -> bool:
        """Whether this object holds it now, as the store knows it. `is_lost` asks nobody."""
        token = self._held
        return token is not None and self._turns.owner() == token

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._left(self.release(), error)

    # --- for tasks ---------------------------------------------------------------------------------------------------
    async def aacquire(self) -> Self:
        await adrive(self._acquire(), Awaited(self._turns).perform)
        if self.max_hold_s is not None:
            self._renewal = LoopRenewal(self, self._since + self.ttl_s / 3)
        return self

    async def atry_acquire(self) -> bool:
        granted = await adrive(self._try(), Awaited(self._turns).perform)
        if granted and self.max_hold_s is not None:
            self._renewal = LoopRenewal(self, self._since + self.ttl_s / 3)
        return bool(granted)

    async def arelease(self) -> bool:
        token = self._let_go()
        try:
            return self._freed(await self._turns.afree(token))
        except asyncio.CancelledError:
            Awaited(self._turns).leave(token)  # whether it was freed is not known
            raise

    async def aextend(self, ttl_s: float | None = None) -> None:
        token, began = self._held_token(), time.monotonic()
        self._extended(await self._turns.aextend(token, ttl_s or self.ttl_s), began + (ttl_s or self.ttl_s))

    async def alocked(self) -> bool:
        return bool(await self._turns.aowner())

    async def aowned(self) -> bool:
        token = self._held
        return token is not None and await self._turns.aowner() == token

    async def __aenter__(self) -> Self:
        return await self.aacquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._left(await self.arelease(), error)

    # --- what this process knows -------------------------------------------------------------------------------------
    @property
    def is_lost(self) -> bool:
        """The lease has ended, as far as this process knows, or the watchdog found another owner. Asks nobody."""
        return self._was_lost or (self._held is not None and time.monotonic() >= self._ends)

    @property
    def _held(self) -> str | None:
        """The token. A fork copies the object, but what it holds stays the parent's."""
        return self._token if self._pid == os.getpid() else None

    def renew(self) -> float | None:
        """For the watchdog: extends by this owner's token. Returns when to come again, None = never."""
        token, began, lease_s = self._renewable()
        if token is None:
            return None
        try:
            is_ours = self._turns.extend(token, lease_s)
        except self._turns.outage as error:
            return self._not_renewed(error)
        return self._renewed(token, began, lease_s, is_ours)

    async def arenew(self) -> float | None:
        token, began, lease_s = self._renewable()
        if token is None:
            return None
        try:
            is_ours = await self._turns.aextend(token, lease_s)
        except self._turns.outage as error:
            return self._not_renewed(error)
        return self._renewed(token, began, lease_s, is_ours)

    def _renewable(self) -> tuple[str | None, float, float]:
        """The token, now, and the lease that max_hold_s leaves; no token where there is nothing to renew any more."""
        now = time.monotonic()
        lease_s = min(self.ttl_s, self._since + (self.max_hold_s or 0.0) - now)
        return (self._token if lease_s > 0 and not self.is_lost else None), now, lease_s

    def _renewed(self, token: str, began: float, lease_s: float, is_ours: bool) -> float | None:
        if self._token != token:  # freed meanwhile
            return None
        if not is_ours:
            self._was_lost = True
            log.warning("lock_lost", lock=self.name, ttl_s=self.ttl_s)
            return None
        self._ends = began + lease_s
        if lease_s < self.ttl_s:
            log.warning("lock_not_renewed_any_more", lock=self.name, max_hold_s=self.max_hold_s)
            return None
        return began + self.ttl_s / 3

    def _not_renewed(self, error: Exception) -> float | None:
        now = time.monotonic()
        log.warning("lock_renewal_failed", lock=self.name, error=type(error).__name__)
        return now + min(self.ttl_s / 10, 1.0) if now < self._ends else None

    # --- steps -------------------------------------------------------------------------------------------------------
    def _acquire(self) -> Steps:
        deadline = time.monotonic() + self.wait_s
        if (yield from self._try()):
            return
        if self.wait_s > 0:
            yield from self._wait(new_token(), deadline)
        else:
            raise self._timeout()

    def _try(self) -> Steps:
        if self._held is not None:
            raise RuntimeError(f"lock {self.name!r} is held by this object already")
        token, began = new_token(), time.monotonic()
        try:
            answer = yield "attempt", Ask(token, self.ttl_s, self.fifo)
        except GeneratorExit:
            raise
        except BaseException as error:
            if not isinstance(
                error, Exception
            ):  # cancelled: the grant may be under way, and nobody would free it
                yield "leave", token
            raise
        return self._granted(token, began, answer)

    def _wait(self, token: str, deadline: float) -> Steps:
        yield "enter", token
        try:
            yield from self._wait_for_turn(token, deadline)
        except GeneratorExit:
            raise
        except BaseException:
            yield "leave", token
            raise
        finally:
            self._turns.waiters.leave(token)

    def _wait_for_turn(self, token: str, deadline: float) -> Steps:
        arrival = 0.0
        while True:
            began, failed = time.monotonic(), None
            try:
                answer = yield "attempt", Ask(token, self.ttl_s, self.fifo, arrival, waits=True)
            except self._turns.outage as error:
                failed, retry_s = error, _OUTAGE_PAUSE_S
            else:
                if self._granted(token, began, answer):
                    return
                arrival, retry_s = answer.arrival, answer.retry_s
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise failed or self._timeout()
            yield "wait", min(left_s, retry_s, _LOOK_S)

    def _granted(self, token: str, began: float, answer: Answer) -> bool:
        if answer.fence:
            self._token, self._pid, self.fence, self._was_lost = token, os.getpid(), answer.fence, False
            self._since, self._ends = began, began + self.ttl_s
        return bool(answer.fence)

    def _timeout(self) -> LockTimeout:
        return LockTimeout(f"lock {self.name!r} was not free within {self.wait_s:g} s")

    def _held_token(self) -> str:
        token = self._held
        if token is None:
            raise RuntimeError(f"lock {self.name!r} is not held by this object")
        return token

    def _let_go(self) -> str:
        token = self._held_token()
        self._token = None
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        return token

    def _freed(self, is_ours: bool) -> bool:
        self._was_lost = not is_ours
        return is_ours

    def _extended(self, is_ours: bool, ends: float) -> None:
        if not is_ours:
            self._was_lost = True
            raise self._lost()
        self._ends = ends

    def _left(self, is_ours: bool, error: BaseException | None) -> None:
        if is_ours:
            return
        log.warning("lock_lost", lock=self.name, ttl_s=self.ttl_s)
        if error is None:
            raise self._lost()

    def _lost(self) -> LockLost:
        return LockLost(f"lock {self.name!r}: the lease of {self.ttl_s} s ended before the work did")
