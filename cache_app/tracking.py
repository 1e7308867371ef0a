"""The connection on which Redis or Valkey says which keys have changed: it keeps a process's memory tier right.

    server → push "invalidate" → Line (a connection and its thread) → Tracker (all lines of a prefix) → Listener

A lease, not a flag, says whether memory may serve. Pushes and answers come in order on one connection, so the answer
to a PING that was sent at t proves that every change before t has been told; the lease ends 2 × ping_s after t. A line
that went silent, a stopped process and a thread that does not get to run end it by themselves: nobody has to notice.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import redis
import structlog
from redis.connection import AbstractConnection
from redis.maint_notifications import MaintNotificationsConfig

from . import seldom

log = structlog.get_logger(__name__)

Connect = Callable[[], AbstractConnection]

_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.05, 3.0
_REFUSED_BACKOFF_S = 30.0  # a server that does not know CLIENT TRACKING will hardly learn it
_trackers: weakref.WeakSet[Tracker] = weakref.WeakSet()


class Listener(Protocol):
    """Whose memory is kept right. Called by a line's thread."""

    def drop(self, keys: Sequence[str]) -> None:
        """These have changed, or are gone."""

    def flush(self) -> None:
        """Anything may have changed."""


class Silent(redis.ConnectionError):
    """No answer within 2 × ping_s: the line is taken for dead, whatever TCP says."""


class Outdated(redis.ConnectionError):
    """The server no longer is what it was when the line was opened (another place in the cluster)."""


def opener(pool: redis.ConnectionPool, **place: Any) -> Connect:
    """Makes connections like those of the pool (TLS, credentials, Sentinel …), but not counted among them.

    place: host and port, where it is not the pool's own.
    """
    ours = {
        "protocol": 3,  # pushes come on the connection that asked for them
        "client_name": "brain-cache-tracker",
        "health_check_interval": 0,  # the line has its own
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    settings = pool.connection_kwargs | ours | place
    return lambda: pool.connection_class(**settings)  # holds the pool, which Sentinel's connections need


class Tracker:
    """The lines of one key prefix, one per server that is read from; memory is right until `fresh_until`.

    connect: server's name → what makes a connection to it. prefix: of the keys; "" = all keys. ping_s: seconds.
    on_loss: called for each line that worked and was lost.
    """

    heartbeat: tuple[str, ...] = ("PING",)

    def __init__(
        self,
        connect: Mapping[str, Connect],
        prefix: str,
        listener: Listener,
        *,
        ping_s: float,
        on_loss: Callable[[], None] = lambda: None,
    ) -> None:
        self.prefix, self.listener, self.ping_s = prefix, listener, ping_s
        self.fresh_until = -math.inf  # monotonic; read without the lock on each hit
        self._connect, self._on_loss = dict(connect), on_loss
        self._lines: dict[str, Line] = {}
        self._lock = threading.Lock()
        self._is_closed = False
        _trackers.add(self)

    @property
    def is_live(self) -> bool:
        return time.monotonic() < self.fresh_until

    def start(self) -> None:
        """See to it that the lines' threads run. Cheap, and to be called whenever memory was found not to be fresh."""
        if self._runs():
            return
        with self._lock:
            if not self._is_closed:
                # No new threads while the interpreter ends, or beyond the system's limit: then memory stays unused.
                with contextlib.suppress(RuntimeError):
                    self._start()

    def close(self) -> None:
        with self._lock:
            self._is_closed, self.fresh_until = True, -math.inf
            lines, self._lines = self._lines, {}
        for line in lines.values():
            line.close()
        self.listener.flush()

    def state(self) -> dict[str, bool]:
        """{server: whether its line is live}"""
        now = time.monotonic()
        return {name: now < line.fresh_until for name, line in self._lines.copy().items()}

    # --- called by lines ---------------------------------------------------------------------------------------------
    def renewed(self) -> None:
        with self._lock:
            if not self._is_closed:
                self._weigh()

    def lost(self, line: Line, error: Exception, *, was_live: bool) -> None:
        with self._lock:
            line.fresh_until = -math.inf
            self._weigh()
        self.listener.flush()  # after the lease: a reader that still saw it finds what it finds, and fills nothing
        if was_live:
            self._on_loss()
            log.warning("cache_tracker_lost", server=line.name, error=type(error).__name__)
        else:
            seldom.warn(log, "cache_tracker_down", server=line.name, error=str(error)[:200])

    def accepts(self, answer: Any) -> bool:
        """Whether the answer to the heartbeat says that the line may stay."""
        return answer in (b"PONG", "PONG")

    # --- parts -------------------------------------------------------------------------------------------------------
    def _runs(self) -> bool:
        lines = self._lines
        return len(lines) == len(self._connect) and all(line.runs for line in lines.values())

    def _start(self) -> None:
        for name, connect in self._connect.items():
            if name not in self._lines or not self._lines[name].runs:
                self._lines[name] = Line(self, name, connect)
                self._lines[name].start()

    def _weigh(self) -> None:
        """The shortest lease counts: what any server failed to tell is not known."""
        is_whole = self._lines and len(self._lines) == len(self._connect)
        self.fresh_until = min(line.fresh_until for line in self._lines.values()) if is_whole else -math.inf

    def _after_fork(self) -> None:
        """In the child: no thread runs here, and the sockets are the parent's."""
        self._lock = threading.Lock()  # its holder is not here
        lines, self._lines, self.fresh_until = self._lines, {}, -math.inf
        for line in lines.values():
            line.let_go()


class Line:
    """A tracking connection, and the thread that reads it, connects it and connects it again."""

    def __init__(self, tracker: Tracker, name: str, connect: Connect) -> None:
        self.name, self.fresh_until = name, -math.inf
        self._tracker, self._connect = tracker, connect
        self._connection: AbstractConnection | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"cache-tracker-{name}", daemon=True)

    @property
    def runs(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """The thread wakes up, and puts its connection away itself: nobody else may while it reads."""
        self._closing.set()
        sock = self._connection._get_socket() if self._connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def let_go(self) -> None:
        """Close the socket; in a forked child without ending the parent's connection (redis-py asks for the pid)."""
        if self._connection is not None:
            with contextlib.suppress(redis.RedisError, OSError):
                self._connection.disconnect()

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                self._listen()
            except Exception as error:  # noqa: BLE001  (whatever it was: the line is made anew)
                was_live = self.fresh_until > -math.inf
                failures = 1 if was_live else failures + 1
                self.let_go()
                if not self._closing.is_set():
                    self._tracker.lost(self, error, was_live=was_live)
                    self._closing.wait(_backoff_s(error, failures))

    def _listen(self) -> None:
        """Connect, begin tracking, and obey until something fails or the line is closed."""
        connection = self._connection = self._connect()
        connection.connect()
        parser: Any = connection._get_parser()
        parser.set_invalidation_push_handler(_as_it_is)
        pulse = Pulse(self._tracker.ping_s, time.monotonic())
        self._begin(connection)
        self._tracker.listener.flush()  # nobody told what changed until now; readers under way fill nothing
        self._renew(pulse)
        log.info("cache_tracker_live", server=self.name, prefix=self._tracker.prefix)
        while not self._closing.is_set():
            now = time.monotonic()
            if pulse.is_silent(now):
                raise Silent(f"{self.name} did not answer in time")
            if pulse.beats(now):
                connection.send_command(*self._tracker.heartbeat, check_health=False)
            message = _read(connection, pulse.wait_s(now))
            if message is not _NOTHING:
                self._take(message, pulse)

    def _begin(self, connection: AbstractConnection) -> None:
        prefix = ("PREFIX", self._tracker.prefix) if self._tracker.prefix else ()
        connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", *prefix, check_health=False)
        connection.read_response()
        connection.send_command(*self._tracker.heartbeat, check_health=False)
        self._check(connection.read_response())

    def _check(self, answer: Any) -> None:
        if not self._tracker.accepts(answer):
            raise Outdated(f"{self.name} is not what it was")

    def _take(self, message: Any, pulse: Pulse) -> None:
        if not isinstance(message, list):
            self._check(message)
            pulse.answered()
            self._renew(pulse)
        elif message[0] in (b"invalidate", "invalidate"):
            keys = message[1]
            if keys is None:  # FLUSHALL, FLUSHDB, or a replica that took over another data set
                self._tracker.listener.flush()
            else:
                self._tracker.listener.drop([key.decode("utf-8", "replace") for key in keys])

    def _renew(self, pulse: Pulse) -> None:
        self.fresh_until = pulse.fresh_until
        self._tracker.renewed()


class Pulse:
    """When to ask, for how long to wait, and what an answer proves. Monotonic seconds.

    One question at a time: every ping_s, sooner answered or not at all.
    """

    def __init__(self, ping_s: float, now: float) -> None:
        """now: before the command was sent whose answer opened the line."""
        self.fresh_until = now + 2 * ping_s
        self._ping_s, self._asks_at = ping_s, now + ping_s
        self._asked_at: float | None = None

    def beats(self, now: float) -> bool:
        """True: ask now."""
        if self._asked_at is None and now >= self._asks_at:
            self._asked_at = now
            return True
        return False

    def answered(self) -> None:
        asked_at = self._asks_at if self._asked_at is None else self._asked_at
        self.fresh_until, self._asks_at = asked_at + 2 * self._ping_s, asked_at + self._ping_s
        self._asked_at = None

    def is_silent(self, now: float) -> bool:
        return self._asked_at is not None and now > self._asked_at + 2 * self._ping_s

    def wait_s(self, now: float) -> float:
        """For the next message, until there is something else to do."""
        until = self._asks_at if self._asked_at is None else self._asked_at + 2 * self._ping_s
        return max(until - now, 0.001)


_NOTHING: Any = object()


def _read(connection: AbstractConnection, wait_s: float) -> Any:
    """The next push or answer, or _NOTHING in time."""
    try:
        return connection.read_response(timeout=wait_s, disconnect_on_error=False, push_request=True)
    except redis.TimeoutError:
        return _NOTHING


def _as_it_is(push: Any) -> Any:
    """redis-py hands what this returns to whoever reads."""
    return push


def _backoff_s(error: Exception, failures: int) -> float:
    """Full jitter: the processes of a host lost their server at the same moment."""
    if isinstance(error, redis.ResponseError):
        return _REFUSED_BACKOFF_S * (0.5 + random.random() / 2)  # noqa: S311
    ceiling = min(_FIRST_BACKOFF_S * 2 ** min(failures, 10), _LAST_BACKOFF_S)
    return ceiling * (0.25 + 0.75 * random.random())  # noqa: S311


def _forked() -> None:
    for tracker in list(_trackers):
        tracker._after_fork()


os.register_at_fork(after_in_child=_forked)
