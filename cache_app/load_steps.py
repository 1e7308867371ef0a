"""The steps of a load, done by a thread or on the event loop.

board                    → (flight, whether this caller leads it)
detach steps, is_apart   → whether there was room for them in the background; apart: this caller does not wait for them
follow flight, seconds   → its outcome, None: not in time
acquire seconds          → a lock        release lock → whether it was still ours        give_back lock, when cancelled
read · load · write value, lives
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from . import background, flights, seldom
from .calls import Call, LoadFailed, Refused
from .conf import conf
from .entries import Read
from .flights import Flight
from .steps import Steps, adrive, drive

log = structlog.get_logger(__name__)


class Direct:
    """By this thread."""

    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call = call

    def perform(self, step: tuple[Any, ...]) -> Any:
        return getattr(self, step[0])(*step[1:])

    def board(self) -> tuple[Flight | None, bool]:
        return flights.board(self.call.seat, time.monotonic(), blocking=True)

    def detach(self, steps: Steps, is_apart: bool) -> bool:
        work = functools.partial(_ended, self.call, steps, self.perform)
        if is_apart:
            return background.threads.submit(flights.apart(), work)
        if background.threads.runs_here():  # all of the threads could come to wait for each other
            work()
            return True
        return background.threads.submit(contextvars.copy_context(), work)

    def follow(self, flight: Flight, timeout_s: float) -> Any:
        return flight.wait(timeout_s)

    def acquire(self, wait_s: float) -> Any:
        lock = _lock(self.call, wait_s)
        lock.acquire()
        return lock

    def release(self, lock: Any) -> Any:
        return lock.release()

    give_back = release

    def read(self) -> Read:
        return self.call.read()

    def load(self) -> Any:
        return self.call.load()

    def write(self, value: Any, lives: Mapping[str, Any]) -> Any:
        return self.call.write(value, **lives)


class Awaited:
    """On the event loop, natively: no thread is used."""

    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call = call

    async def perform(self, step: tuple[Any, ...]) -> Any:
        return await getattr(self, step[0])(*step[1:])

    async def board(self) -> tuple[Flight | None, bool]:
        return flights.board(self.call.seat, time.monotonic(), blocking=False)

    async def detach(self, steps: Steps, is_apart: bool) -> bool:
        context = flights.apart() if is_apart else contextvars.copy_context()
        background.start(context, _aended(self.call, steps, self.perform))
        return True

    async def follow(self, flight: Flight, timeout_s: float) -> Any:
        return await flight.await_(timeout_s)

    async def acquire(self, wait_s: float) -> Any:
        lock = _lock(self.call, wait_s)
        await lock.aacquire()
        return lock

    async def release(self, lock: Any) -> Any:
        return await lock.arelease()

    async def give_back(self, lock: Any) -> bool:
        """By a thread: the loop may be ending, and its connections with it."""
        return background.threads.submit(flights.apart(), lock.release)

    async def read(self) -> Read:
        return await self.call.aread()

    async def load(self) -> Any:
        loaded = self.call.load()
        return await loaded if inspect.isawaitable(loaded) else loaded

    async def write(self, value: Any, lives: Mapping[str, Any]) -> Any:
        return await self.call.awrite(value, **lives)


def _lock(call: Call, wait_s: float) -> Any:
    """Renewed while the load lasts: when its holder is killed, one other loads after a lease that can be short."""
    return call.cache.lock(f"rebuild:{call.key}", ttl_s=conf().REBUILD_LEASE_S, wait_s=wait_s, renew=True)


def _ended(call: Call, steps: Steps, perform: Callable[[Any], Any]) -> None:
    _say(call, drive(steps, perform))


async def _aended(call: Call, steps: Steps, perform: Callable[[Any], Any]) -> None:
    _say(call, await adrive(steps, perform))


def _say(call: Call, outcome: Any) -> None:
    """Nobody may be waiting any more, so nobody would raise it."""
    if isinstance(outcome, LoadFailed | Refused):
        error = type(outcome.error).__name__
        seldom.warn(log, "cache_background_load_failed", function=call.name, error=error)
