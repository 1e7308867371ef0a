"""One connection on which a server tells what has changed, and the thread that reads it, connects it and connects it
again. A reader of memory may read it in the thread's place, when it has been told something and the thread has not run.
"""

from __future__ import annotations

import contextlib
import math
import random
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import redis
import structlog
from redis.connection import AbstractConnection
from redis.maint_notifications import MaintNotificationsConfig

from .pulse import Pulse

if TYPE_CHECKING:
    from .tracking import Tracker

log = structlog.get_logger(__name__)

Connect = Callable[[], AbstractConnection]

_TURN_S = 0.001  # that a reader waits for the thread to be done with what has arrived
_AT_ONCE = 64  # messages; then a reader leaves the rest to the thread, and the thread looks at the clock
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.05, 3.0
_REFUSED_BACKOFF_S = 30.0  # a server that does not know CLIENT TRACKING will hardly learn it
_NOTHING: Any = object()


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


class Line:
    """lease_until: monotonic; what the server had to tell until then has been told, or is about to be obeyed."""

    def __init__(self, tracker: Tracker, name: str, connect: Connect) -> None:
        self.name, self.lease_until = name, -math.inf
        self._tracker, self._connect = tracker, connect
        self._connection: AbstractConnection | None = None
        self._session: Session | None = None
        self._turn = threading.Lock()  # to use the session
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
        self.close_socket()

    def close_socket(self) -> None:
        sock = self._connection._get_socket() if self._connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def let_go(self) -> None:
        """Close the socket; in a forked child without ending the parent's connection (redis-py asks for the pid)."""
        if self._connection is not None:
            with contextlib.suppress(redis.RedisError, OSError):
                self._connection.disconnect()

    def catches_up(self) -> bool:
        """Obey what has arrived. False: it is too much, or the thread is at it and does not come to an end."""
        if not self._turn.acquire(timeout=_TURN_S):
            return False
        try:
            return self._session is not None and self._session.catches_up()
        finally:
            self._turn.release()

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                self._listen()
            except Exception as error:  # noqa: BLE001  (whatever it was: the line is made anew)
                was_live = self.lease_until > -math.inf
                failures = 1 if was_live else failures + 1
                self._end()
                if not self._closing.is_set():
                    self._tracker.lost(self, error, was_live=was_live)
                    self._closing.wait(_backoff_s(error, failures))
        self._end()

    def _listen(self) -> None:
        """Connect, begin tracking, and obey until something fails or the line is closed."""
        self._connection = self._connect()
        session = Session(self, self._tracker, self._connection)
        with self._turn:
            self._session = session
        # Nobody told what changed until now. Readers that are under way keep nothing.
        self._tracker.listener.flush()
        self.renew(session.pulse)
        log.info("cache_tracker_live", server=self.name, prefix=self._tracker.prefix)
        while not self._closing.is_set():
            session.wait()
            with self._turn:
                session.go_on(time.monotonic())

    def _end(self) -> None:
        with self._turn:
            self._session = None
            self.let_go()

    def renew(self, pulse: Pulse) -> None:
        self.lease_until = pulse.lease_until
        self._tracker.renewed()


class Session:
    """A connection on which tracking is on. One thread at a time, but for `wait`. Raises what ends it."""

    def __init__(self, line: Line, tracker: Tracker, connection: AbstractConnection) -> None:
        """Connects."""
        self._line, self._tracker, self._connection = line, tracker, connection
        self._failure: Exception | None = None
        self._may_have_more = False  # read from the socket, and not obeyed yet: no poll tells of that
        connection.connect()
        parser: Any = connection._get_parser()
        parser.set_invalidation_push_handler(_as_it_is)
        self.pulse = Pulse(tracker.ping_s, time.monotonic())
        self._begin()
        self._for_thread, self._for_readers = (_poll_of(connection) for _ in range(2))

    def wait(self) -> None:
        """Until something arrives, or there is something else to do."""
        if self._may_have_more:
            return
        self._for_thread.poll(self.pulse.wait_s(time.monotonic()) * 1000)

    def go_on(self, now: float) -> None:
        """Obey what has arrived, and ask when it is time."""
        if self._failure is not None:
            raise self._failure
        self._obey()
        if self.pulse.is_silent(now):
            raise Silent(f"{self._line.name} did not answer in time")
        if self.pulse.beats(now):
            self._connection.send_command(*self._tracker.heartbeat, check_health=False)

    def catches_up(self) -> bool:
        """Whether everything that has arrived is obeyed now. Raises nothing: what fails ends the line's own thread."""
        try:
            if self._failure is not None:
                return False
            return self._obey() if self._may_have_more or self._for_readers.poll(0) else True
        except Exception as error:  # noqa: BLE001  (the message is lost: whatever it was, the line is made anew)
            self._failure = error
            self._line.close_socket()
            return False

    def _begin(self) -> None:
        connection, prefix = self._connection, self._tracker.prefix
        filters = ("PREFIX", prefix) if prefix else ()
        connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", *filters, check_health=False)
        connection.read_response()
        connection.send_command(*self._tracker.heartbeat, check_health=False)
        self._check(connection.read_response())

    def _check(self, answer: Any) -> None:
        if not self._tracker.accepts(answer):
            raise Outdated(f"{self._line.name} is not what it was")

    def _obey(self) -> bool:
        """False: there may be more."""
        self._may_have_more = True
        for _ in range(_AT_ONCE):
            message = _read(self._connection)
            if message is _NOTHING:
                self._may_have_more = False
                return True
            self._take(message)
        return False

    def _take(self, message: Any) -> None:
        if not isinstance(message, list):
            self._check(message)
            self.pulse.answered()
            self._line.renew(self.pulse)
        elif message[0] in (b"invalidate", "invalidate"):
            keys = message[1]
            if keys is None:  # FLUSHALL, FLUSHDB, or a replica that took over another data set
                self._tracker.listener.flush()
            else:
                self._tracker.listener.drop([key.decode("utf-8", "replace") for key in keys])


def _poll_of(connection: AbstractConnection) -> select.poll:
    sock = connection._get_socket()
    if sock is None:
        raise redis.ConnectionError("closed while it was being opened")
    made = select.poll()
    made.register(sock, select.POLLIN)
    return made


def _read(connection: AbstractConnection) -> Any:
    """The next push or answer that has arrived, or _NOTHING."""
    try:
        return connection.read_response(timeout=0, disconnect_on_error=False, push_request=True)
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
