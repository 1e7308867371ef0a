"""One load per key and process: whoever comes first leads, the others wait for what it finds.

Threads and the tasks of any number of event loops share a flight. It ends with an outcome, which is whatever the
leader says (a value, an error), or ABANDONED when the leader was cancelled: then those who waited board again, and one
of them leads. A caller whose waiting could never end (it waits, over however many others, for itself) is told so.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
from collections.abc import Hashable, Iterator
from contextvars import ContextVar
from typing import Any, Final

ABANDONED: Final = object()

_guard = (
    threading.RLock()
)  # re-entrant: the garbage collector may close a leader's coroutine while it is held
_flights: dict[Hashable, Flight] = {}
_leading: ContextVar[tuple[Flight, ...]] = ContextVar("cache_flights_led", default=())


class Flight:
    """progressed_at: when its leader last got somewhere; the clock is the caller's."""

    __slots__ = ("_awaited", "_event", "_leaders", "_loop", "_waits_for", "key", "outcome", "progressed_at")

    def __init__(self, key: Hashable, loop: asyncio.AbstractEventLoop | None, now: float) -> None:
        self.key, self.progressed_at = key, now
        self.outcome: Any = None  # None: in the air
        self._loop = loop  # whose task leads; None: a thread does
        self._leaders = 1
        self._event: threading.Event | None = None
        self._awaited: dict[asyncio.AbstractEventLoop, asyncio.Future[None]] = {}
        self._waits_for: list[Flight] = []  # what its loader, or a call below it, waits for

    # --- for who leads -----------------------------------------------------------------------------------------------
    def end(self, outcome: Any) -> None:
        """Everybody who waits gets the outcome. After a take-over the first of the leaders decides."""
        with _guard:
            if self.outcome is not None:
                return
            self.outcome = outcome
            if _flights.get(self.key) is self:
                del _flights[self.key]
            awaited, self._awaited = self._awaited, {}
        if self._event is not None:
            self._event.set()
        for loop, future in awaited.items():
            with contextlib.suppress(RuntimeError):  # that loop is closed, and who waited on it gone
                loop.call_soon_threadsafe(_wake, future)

    def abandon(self) -> None:
        """This leader gives up; unless there is another one, those who wait board again."""
        with _guard:
            self._leaders -= 1
            is_last = self._leaders <= 0
        if is_last:
            self.end(ABANDONED)

    @contextlib.contextmanager
    def led(self) -> Iterator[None]:
        """Around the loader: calls inside it know what waits for them."""
        token = _leading.set((*_leading.get(), self))
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):  # closed by the garbage collector, in another context
                _leading.reset(token)

    # --- for who follows ---------------------------------------------------------------------------------------------
    def wait(self, timeout_s: float | None) -> Any:
        """The outcome; None: not within timeout_s."""
        with _guard:
            if self.outcome is not None:
                return self.outcome
            self._event = event = self._event or threading.Event()
        with self._followed():
            event.wait(timeout_s)
        return self.outcome

    async def await_(self, timeout_s: float | None) -> Any:
        """As `wait`. Cancelling it leaves the flight alone."""
        loop = asyncio.get_running_loop()
        with _guard:
            if self.outcome is not None:
                return self.outcome
            future = self._awaited.get(loop) or self._awaited.setdefault(loop, loop.create_future())
        with self._followed():
            await asyncio.wait([future], timeout=timeout_s)
        return self.outcome

    def take_over(self, now: float, patience_s: float) -> bool:
        """Lead it too, since its leader got nowhere for patience_s: at most one caller per patience_s does."""
        with _guard:
            if self.outcome is not None or now - self.progressed_at < patience_s:
                return False
            self.progressed_at = now
            self._leaders += 1
            return True

    @contextlib.contextmanager
    def _followed(self) -> Iterator[None]:
        mine = _leading.get()
        if not mine:
            yield
            return
        with _guard:
            for flight in mine:
                flight._waits_for.append(self)
        try:
            yield
        finally:
            with _guard:
                for flight in mine:
                    flight._waits_for.remove(self)

    def _is_orphaned(self) -> bool:
        return self._loop is not None and self._loop.is_closed()

    def _reaches(self, targets: tuple[Flight, ...]) -> bool:
        """Whether it ends only after one of the targets has."""
        seen: set[int] = set()
        ahead = [self]
        while ahead:
            at = ahead.pop()
            if at in targets:
                return True
            if id(at) not in seen:
                seen.add(id(at))
                ahead += at._waits_for
        return False


def board(key: Hashable, now: float, *, blocking: bool) -> tuple[Flight | None, bool]:
    """(flight, whether the caller leads it). (None, False): waiting for it would never end, so load alone.

    blocking: the caller waits as a thread; then it must not wait for a task of the loop that this thread runs.
    """
    running = _running_loop()
    with _guard:
        flight = _flights.get(key)
        if flight is None or flight._is_orphaned():
            flight = _flights[key] = Flight(key, None if blocking else running, now)
            return flight, True
        is_own_loop = blocking and running is not None and flight._loop is running
        if is_own_loop or flight._reaches(_leading.get()):
            return None, False
        return flight, False


def apart() -> contextvars.Context:
    """A copy of this context for work that nobody here waits for."""
    context = contextvars.copy_context()
    context.run(_leading.set, ())
    return context


def in_the_air() -> int:
    return len(_flights)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _forked() -> None:
    """In a child: its parent's leaders fly on without it."""
    global _guard
    _guard = threading.RLock()
    _flights.clear()


os.register_at_fork(after_in_child=_forked)
