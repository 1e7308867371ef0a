"""Connections to one server for threads: a bounded number of them, last in first out, and nothing is sent twice.

redis-py dials, speaks the protocol and reads replies; what stands here instead of its pool is the way to a connection,
which takes no lock while one is free, and what happens when a connection breaks.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol

import redis
import structlog
from hiredis import pack_command
from redis.exceptions import InvalidResponse, MaxConnectionsError

from .breaker import Breaker

log = structlog.get_logger(__name__)

# NAT and load balancers forget a silent connection without a word (Azure after 4 minutes, AWS after 350 s), and a
# command on it would wait for its timeout. One that was not used for so long is replaced.
IDLE_S = 60.0
Command = tuple[Any, ...]


class Refused(redis.ConnectionError):
    """The breaker is open: nothing was sent."""


class Link:
    """The way to one server. Every method raises redis.RedisError; an error reply of a pipeline stands in its place."""

    is_cluster = False

    def __init__(
        self,
        name: str,
        make: Callable[[], Any],
        breaker: Breaker,
        *,
        limit: int,
        wait_s: float,
    ) -> None:
        """make: a connection of redis-py's that is not dialled yet. wait_s: for a free one of `limit`."""
        self.name, self.breaker = name, breaker
        self._make, self._limit, self._wait_s = make, limit, wait_s
        self.reset()

    def reset(self) -> None:
        """Forget every connection without closing it: after a fork they are the parent's."""
        self._idle: deque[tuple[float, Any]] = deque()  # when it was used last; pop and append are atomic
        # Weak: one that an interrupted thread lost on its way back does not count for ever.
        self._made: weakref.WeakSet[Any] = weakref.WeakSet()
        # `with` on the lock itself: on the way into a Condition, which is Python code, an exception that a signal handler
        # or another thread raises here would leave it taken for ever.
        self._guard = threading.Lock()
        self._free = threading.Condition(self._guard)
        self._waiting = 0

    def close(self) -> None:
        self._drop_idle()

    def call(self, *command: Any) -> Any:
        """Sent at most once: after a failure nobody knows whether the server has done it."""
        packed = pack_command(command)
        if self.breaker.in_a_row:
            self.admit()
        connection = self._take()
        try:
            _make_ready(connection)
            connection.send_packed_command((packed,), check_health=False)
            reply = connection.read_response()
        except BaseException as error:
            self._failed(connection, error)
            raise
        self._done(connection)
        return reply

    def read(self, *command: Any) -> Any:
        """For what changes nothing: once more when the connection turns out to have been closed while it was idle."""
        packed = (pack_command(command),)
        if self.breaker.in_a_row:
            self.admit()
        connection = self._take()
        was_open = connection.is_connected
        try:
            if not was_open:
                connection.connect()
            connection.send_packed_command(packed, check_health=False)
            reply = connection.read_response()
        except BaseException as error:
            if not was_open or type(error) is not redis.ConnectionError:
                self._failed(connection, error)
                raise
            self._drop(connection)
        else:
            self._done(connection)
            return reply
        return self.call(*command)

    def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """One round trip, sent at most once."""
        return self.finish(self.begin(commands), len(commands))

    def begin(self, commands: Sequence[Command]) -> Any:
        """Send them; whoever calls must `finish`."""
        packed = b"".join([pack_command(command) for command in commands])
        if self.breaker.in_a_row:
            self.admit()
        connection = self._take()
        try:
            _make_ready(connection)
            connection.send_packed_command((packed,), check_health=False)
        except BaseException as error:
            self._failed(connection, error)
            raise
        return connection

    def finish(self, connection: Any, count: int) -> list[Any]:
        replies: list[Any] = []
        try:
            for _ in range(count):
                replies.append(_reply_or_error(connection))
        except BaseException as error:
            self._failed(connection, error)
            raise
        if any(isinstance(reply, redis.ReadOnlyError) for reply in replies):
            self._leave_replica(connection)
        self._done(connection)
        return replies

    def abandon(self, connection: Any) -> None:
        """Of a `begin` that nobody will `finish`."""
        connection.disconnect()
        self._give(connection)

    def primaries(self) -> list[Link]:
        return [self]

    def admit(self) -> None:
        now = monotonic()
        if not self.breaker.allows(now):
            raise Refused(f"the breaker of {self.name} is open: {self.breaker.why(now)}")

    # --- connections -------------------------------------------------------------------------------------------------
    def _take(self) -> Any:
        try:
            used_at, connection = self._idle.pop()
        except IndexError:
            return self._make_or_wait()
        if monotonic() - used_at > IDLE_S:
            connection.disconnect()
        return connection

    def _make_or_wait(self) -> Any:
        with self._guard:
            if len(self._made) < self._limit:
                connection = self._make()
                self._made.add(connection)
                return connection
            self._waiting += 1
            try:
                return self._wait()
            finally:
                self._waiting -= 1

    def _wait(self) -> Any:
        deadline = monotonic() + self._wait_s
        while True:
            try:
                return self._idle.pop()[1]
            except IndexError:
                left_s = deadline - monotonic()
            if left_s <= 0:
                raise MaxConnectionsError(
                    f"none of {self._limit} connections was free within {self._wait_s} s"
                )
            self._free.wait(left_s)

    def _give(self, connection: Any) -> None:
        self._idle.append((monotonic(), connection))
        if self._waiting:
            with self._guard:
                self._free.notify()

    def _done(self, connection: Any) -> None:
        self._give(connection)
        if self.breaker.in_a_row:
            succeeded(self)

    def _failed(self, connection: Any, error: BaseException) -> None:
        """Leave nothing behind: a connection with half a reply on it would answer the next caller with it."""
        if isinstance(error, redis.ResponseError):
            if isinstance(error, redis.ReadOnlyError):
                self._leave_replica(connection)
            self._done(connection)
            return
        if not counts(error):  # this thread was interrupted
            connection.disconnect()
            self._give(connection)
            self.breaker.released()
            return
        self._drop(connection)
        failed(self, monotonic(), error)

    def _leave_replica(self, connection: Any) -> None:
        """It was the primary's: the name leads to another one by now, for the idle connections as well."""
        connection.disconnect()
        self._drop_idle()

    def _drop(self, connection: Any) -> None:
        """One connection broke: the idle ones most likely did as well."""
        connection.disconnect()
        self._drop_idle()
        self._give(connection)

    def _drop_idle(self) -> None:
        for _ in range(len(self._idle)):
            try:
                _, connection = self._idle.popleft()
            except IndexError:
                return
            connection.disconnect()
            self._give(connection)


class Breaking(Protocol):
    name: str
    breaker: Breaker


def failed(link: Breaking, now: float, error: BaseException) -> None:
    verdict = f"{type(error).__name__}: {error}"
    if link.breaker.failed(now, verdict):
        log.warning("cache_breaker_opened", server=link.name, error=verdict, open_s=link.breaker.open_s)


def succeeded(link: Breaking) -> None:
    if link.breaker.succeeded():
        log.info("cache_breaker_closed", server=link.name)


def counts(error: BaseException) -> bool:
    """Whether it says that the server cannot be reached or used: what the breaker counts.

    A refusal (OOM, READONLY, CLUSTERDOWN …) does not: it comes at once, and other commands may still be served.
    """
    if isinstance(error, Refused | MaxConnectionsError):
        return False
    return isinstance(error, redis.ConnectionError | redis.TimeoutError | InvalidResponse | OSError)


def all_good(replies: list[Any]) -> list[Any]:
    """A pipeline's replies; raises the first error among them."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def all_read(link: Any, commands: Sequence[Command]) -> list[Any]:
    """The replies to commands that change nothing, by a Link or a ClusterLink; raises the first error among them.

    Once more after a failure that came at once: a primary of a cluster may have been replaced long ago, and nobody here
    has noticed.
    """
    try:
        return all_good(link.pipeline(commands))
    except redis.ConnectionError:
        return all_good(link.pipeline(commands))


def _make_ready(connection: Any) -> None:
    """Dialled, and not closed by the server since: then it is dialled again before anything is sent."""
    if connection.is_connected:
        try:
            if not connection.can_read():
                return
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            pass
        connection.disconnect()
    connection.connect()


def _reply_or_error(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error
