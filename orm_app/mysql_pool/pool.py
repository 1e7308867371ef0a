"""A bounded pool of connections: one state machine. The last one given back is lent first, who waits for the longest is
served first.

There is no thread of its own while nothing is to be done: a timer closes what has been idle for long, and opens what
is missing to min_size.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from MySQLdb import OperationalError

from orm_app.pool_text import all_in_use, none_came_back

from .figures import Counts
from .options import PoolOptions

_LOOK_S = 1.0  # how often somebody who waits looks for connections that ended with their thread
_SEARCH_EVERY_S = 10.0  # a full collection of garbage takes its time
_SPREAD = 0.05  # of max_lifetime


class PoolTimeout(OperationalError):  # the driver's, as psycopg_pool's is: Django makes its own of it
    """No connection became free in time."""


class TooManyRequests(PoolTimeout):
    """max_waiting callers wait already."""


class PoolClosed(OperationalError):
    """The pool was closed: by close_pool(), or at the end of the process."""


class Driver(Protocol):
    def connect(self) -> Any:
        """Raises the driver's own errors."""

    def is_alive(self, connection: Any, idle_s: float) -> bool: ...

    def reset(self, connection: Any) -> Literal["clean", "dirty", "broken"]:
        """End its transaction. Dirty: alive, but the next borrower would notice this one. Never raises."""

    def close(self, connection: Any) -> None:
        """Never raises."""

    def abandon(self, connection: Any, *, is_idle: bool) -> None:
        """Let go of it in a forked child, without a word to the server. Never raises."""


@dataclass(slots=True, eq=False)
class Member:
    """One connection of a pool. `connection` while it is idle; a lent one is held weakly, so that it can end."""

    pool: Pool
    expires_at: float
    connection: Any = None
    lent: Callable[[], Any] = lambda: None
    since: float = 0.0  # lent or idle


@dataclass(slots=True, eq=False)
class _Waiter:
    is_served: threading.Event = field(default_factory=threading.Event)
    member: Member | None = None  # None when served: there is room for a new connection
    is_refused: bool = False  # served by nothing: the pool was closed


class Pool:
    """Raises PoolTimeout, TooManyRequests, PoolClosed, and what the driver raises when it connects."""

    def __init__(
        self,
        name: str,
        driver: Driver,
        options: PoolOptions,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name, self.options = name, options
        self.min_size, self.max_size = options.min_size, options.max_size
        self._driver, self._clock, self._chance = driver, clock, chance
        self._forgotten: deque[Member] = (
            deque()
        )  # appended to by the garbage collector, which may take no lock
        self._start_anew()
        _pools.add(self)

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._size = 0  # idle, lent, and being opened
        self._idle: deque[Member] = deque()
        self._lent: set[Member] = set()
        self._waiting: deque[_Waiter] = deque()
        self._counts = Counts()
        self._timer: threading.Timer | None = None
        self._searched_at = float("-inf")
        self._is_closed = False

    # --- lending ------------------------------------------------------------------------------------------------------

    def getconn(self, timeout: float | None = None) -> Any:
        """timeout: seconds to wait for a free one; connecting takes its own time."""
        member = self._claim(self.options.timeout if timeout is None else timeout)
        try:
            connection = self._fit(member) if member else None
            if connection is None:
                connection = self._connect()
        except BaseException:
            self._hand_on(None)
            raise
        return connection

    def _claim(self, timeout_s: float) -> Member | None:
        """An idle connection, or None: room to open one."""
        with self._lock:
            self._collect()
            self._counts.requests_num += 1
            self._refuse_closed()
            if self._idle:
                return self._idle.pop()
            if self._size < self.max_size:
                self._size += 1
                return None
            waiter = self._queue()
        began = self._clock()
        try:
            self._wait(waiter, began, timeout_s)
        except BaseException:
            self._leave_queue(waiter)
            raise
        finally:
            with self._lock:
                self._counts.requests_wait_ms += int((self._clock() - began) * 1000)
        return waiter.member

    def _queue(self) -> _Waiter:
        if 0 < self.options.max_waiting <= len(self._waiting):
            self._counts.requests_errors += 1
            raise TooManyRequests(f"{self._busy()}: max_waiting is {self.options.max_waiting}.")
        waiter = _Waiter()
        self._waiting.append(waiter)
        self._counts.requests_queued += 1
        return waiter

    def _wait(self, waiter: _Waiter, began: float, timeout_s: float) -> None:
        while True:
            left_s = began + timeout_s - self._clock()
            if waiter.is_served.wait(max(0.0, min(left_s, _LOOK_S))):
                if waiter.is_refused:
                    self._refuse_closed()
                return
            self._search(timeout_s)
            with self._lock:
                self._collect()
                if left_s > 0 or waiter.is_served.is_set():
                    continue
                self._counts.requests_errors += 1
                raise PoolTimeout(none_came_back(self._busy(), timeout_s))

    def _search(self, timeout_s: float) -> None:
        """A thread that ended without a close() leaves its connection in a circle of Django's objects.

        Often enough that nobody gives up without one search of his own time.
        """
        with self._lock:
            now = self._clock()
            if now < self._searched_at + min(_SEARCH_EVERY_S, timeout_s / 2):
                return
            self._searched_at = now
        gc.collect()

    def _busy(self) -> str:
        return all_in_use(self.name, self.max_size, len(self._waiting))

    def _leave_queue(self, waiter: _Waiter) -> None:
        with self._lock:
            if not waiter.is_served.is_set():
                self._waiting.remove(waiter)
                return
        if not waiter.is_refused:  # served in the moment of giving up
            self._hand_on(waiter.member)

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise PoolClosed(f"the pool of DATABASES[{self.name!r}] is closed")

    def _fit(self, member: Member) -> Any:
        """Its connection, lent; None when it is dead, or old enough: its place is the caller's."""
        now, connection = self._clock(), member.connection
        is_old = now >= member.expires_at
        if not is_old and self._driver.is_alive(connection, now - member.since):
            self._lend(member, connection)
            return connection
        self._driver.close(connection)
        if not is_old:
            with self._lock:
                self._counts.connections_lost += 1
        return None

    def _connect(self) -> Any:
        member, connection = self._opened()
        self._lend(member, connection)
        return connection

    def _opened(self) -> tuple[Member, Any]:
        began = self._clock()
        try:
            connection = self._driver.connect()
        except BaseException:
            with self._lock:
                self._counts.connections_num += 1
                self._counts.connections_errors += 1
            raise
        now = self._clock()
        with self._lock:
            self._counts.connections_num += 1
            self._counts.connections_ms += int((now - began) * 1000)
        lifetime_s = self.options.max_lifetime * (1 - _SPREAD * self._chance())
        return Member(self, now + lifetime_s), connection

    def _lend(self, member: Member, connection: Any) -> None:
        forgotten = self._forgotten
        member.connection, member.since = None, self._clock()
        member.lent = weakref.ref(connection, lambda _: forgotten.append(member))
        connection.pool_member = member
        with self._lock:
            self._lent.add(member)
            self._arm()

    def _collect(self) -> None:
        """Take back the places of connections that nobody holds any more: their thread ended without a close()."""
        while self._forgotten:
            member = self._forgotten.popleft()
            if member in self._lent:
                self._lent.remove(member)
                self._counts.connections_lost += 1
                self._pass(None)

    # --- taking back -------------------------------------------------------------------------------------------------

    def putconn(self, connection: Any, *, is_broken: bool = False) -> None:
        member: Member = connection.pool_member
        now = self._clock()
        with self._lock:
            is_ours = member in self._lent
            if is_ours:
                self._lent.remove(member)
                self._counts.usage_ms += int((now - member.since) * 1000)
        if not is_ours:  # given back twice, lent before a fork
            self._driver.close(connection)
            return
        state = "broken" if is_broken else self._driver.reset(connection)
        if state == "clean" and not self._is_closed and now < member.expires_at:
            member.connection, member.since = connection, now
            self._hand_on(member)
            return
        # Closed before its place is free: the server never sees more than max_size.
        self._driver.close(connection)
        with self._lock:
            self._counts.returns_bad += state == "broken"
            self._counts.returns_dirty += state == "dirty"
        self._hand_on(None)

    def _hand_on(self, member: Member | None) -> None:
        with self._lock:
            self._pass(member)
            self._arm()

    def _pass(self, member: Member | None) -> None:
        """Give a connection, or with None its place, to whoever waits for the longest. The lock is held."""
        if self._is_closed:
            self._size -= 1
            if member is not None:
                self._driver.close(member.connection)
        elif self._waiting:
            waiter = self._waiting.popleft()
            waiter.member = member
            waiter.is_served.set()
        elif member is not None:
            self._idle.append(member)
        else:
            self._size -= 1

    @contextlib.contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[Any]:
        connection = self.getconn(timeout)
        try:
            yield connection
        finally:
            self.putconn(connection)

    # --- tending -----------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """The lock is held."""
        if self._timer is not None or self._is_closed:
            return
        if self._lent and self._size < self.min_size:
            delay_s = 0.0
        elif self._idle and self._size > self.min_size:
            ends_at = self._idle[0].since + self.options.max_idle  # the first is idle for the longest
            delay_s = max(0.05, ends_at - self._clock())
        else:
            return
        timer = threading.Timer(delay_s, self._tend)
        timer.daemon = True
        with contextlib.suppress(RuntimeError):  # at the end of the process no thread can start
            timer.start()
            self._timer = timer

    def _tend(self) -> None:
        self.shrink()
        self._fill()
        with self._lock:
            self._timer = None
            if self._size > self.min_size:  # and no hot circle around a server that is down
                self._arm()

    def shrink(self) -> None:
        """Close what has been idle for max_idle, down to min_size, and what is too old."""
        now, closing = self._clock(), []
        with self._lock:
            for member in list(self._idle):  # the one that is idle for the longest first
                is_spare = self._size > self.min_size and now - member.since >= self.options.max_idle
                if is_spare or now >= member.expires_at:
                    self._idle.remove(member)
                    self._size -= 1
                    closing.append(member.connection)
        for connection in closing:
            self._driver.close(connection)

    def _fill(self) -> None:
        while True:
            with self._lock:
                if self._is_closed or self._size >= self.min_size:
                    return
                self._size += 1
            try:
                member, connection = self._opened()
            except Exception:  # noqa: BLE001  (counted; whoever needs a connection gets the error itself)
                self._hand_on(None)
                return
            connection.pool_member = member
            member.connection, member.since = connection, self._clock()
            self._hand_on(member)

    # --- the whole ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Nothing: it opens with its first connection. psycopg_pool's name, for those that know both."""

    def close(self) -> None:
        """Idle connections end now, lent ones when they are given back; whoever waits gets PoolClosed."""
        with self._lock:
            self._is_closed = True
            closing, waiting = list(self._idle), list(self._waiting)
            self._size -= len(closing)
            self._idle.clear()
            self._waiting.clear()
            if self._timer is not None:
                self._timer.cancel()
        for waiter in waiting:
            waiter.is_refused = True
            waiter.is_served.set()
        for member in closing:
            self._driver.close(member.connection)

    def get_stats(self) -> dict[str, int]:
        with self._lock:
            self._collect()
            return {
                "pool_min": self.min_size,
                "pool_max": self.max_size,
                "pool_size": self._size,
                "pool_available": len(self._idle),
                "requests_waiting": len(self._waiting),
                **asdict(self._counts),
            }

    def forget(self) -> None:
        """In a forked child: the sockets are the parent's, so nothing may be said on them, not even goodbye."""
        idle, lent = self._idle, self._lent
        for member in idle:
            self._driver.abandon(member.connection, is_idle=True)
        for member in lent:
            connection = member.lent()
            if connection is not None:
                self._driver.abandon(connection, is_idle=False)
        self._forgotten.clear()
        self._start_anew()


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _forget_all() -> None:
    for pool in list(_pools):
        pool.forget()


def _close_all() -> None:
    for pool in list(_pools):
        pool.close()


os.register_at_fork(after_in_child=_forget_all)
atexit.register(_close_all)
