"""Locks on Redis or Valkey: one script per step, and one subscription per process that hears whose turn it is.

attempt → refused → place in the queue → told by PUBLISH → attempt
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import threading
import time
import weakref
from pathlib import Path
from typing import Any, Protocol

import redis
import structlog
from redis.connection import AbstractConnection
from redis.exceptions import NoScriptError

from . import addresses
from .lock_rules import Answer, Ask, staggered_s
from .lock_waits import Waiters, process_name, started

log = structlog.get_logger(__name__)

_POLL_S = 1.0  # a wake-up that got lost costs no more
_DEAF_POLL_S = 0.05  # while nothing can be heard, because the subscription is not there (yet)
_QUIET_S = 5.0  # then the subscription is asked whether it lives, or ended where nobody waits
# RESP3 would send pushes where RESP2 sends replies.
_LISTENING = {"protocol": 2, "client_name": "brain-cache-locks", "health_check_interval": 0}
_FOLDER = Path(__file__).with_name("lua")


class Server(Protocol):
    """Where locks are kept: a RedisStore. A cluster counts as one; all keys of a lock are in one slot."""

    url: str

    @property
    def link(self) -> Any: ...
    def alink(self) -> Any: ...
    def pools(self) -> dict[str, redis.ConnectionPool]: ...


class Script:
    """Sent by its hash; its text only where the server does not know it (any more)."""

    def __init__(self, *names: str) -> None:
        lines = [
            line.strip() for name in names for line in (_FOLDER / f"{name}.lua").read_text().splitlines()
        ]
        self.text = "\n".join(line for line in lines if line and not line.startswith("--"))
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def run(self, link: Any, keys: list[str], *arguments: Any) -> Any:
        try:
            return link.call("EVALSHA", self.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return link.call("EVAL", self.text, len(keys), *keys, *arguments)

    async def arun(self, link: Any, keys: list[str], *arguments: Any) -> Any:
        try:
            return await link.call("EVALSHA", self.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await link.call("EVAL", self.text, len(keys), *keys, *arguments)


ATTEMPT = Script("lock_wake", "lock_attempt")
FREE = Script("lock_wake", "lock_free")
LEAVE = Script("lock_wake", "lock_leave")
EXTEND = Script("lock_extend")


class RedisTurns:
    """The holder and the waiters of one name. The rules stand in lua/lock_*.lua."""

    outage: tuple[type[Exception], ...] = (
        redis.ConnectionError,
        redis.TimeoutError,
        redis.exceptions.ReadOnlyError,
        redis.exceptions.ClusterDownError,
        redis.exceptions.MasterDownError,
        redis.exceptions.TryAgainError,
    )

    def __init__(self, server: Server, prefix: str, name: str) -> None:
        self._server, self._listener = server, _listener(server, prefix)
        # Braces: one slot in a cluster. Not below `prefix:`: clearing the cache leaves locks and fences alone.
        self.stem = f"{prefix}.lock:{{{name}}}"
        self._keys = [self.stem, f"{self.stem}:fence", f"{self.stem}:queue", f"{self.stem}:told"]
        self._channel, self._counts = self._listener.stem, self._listener.counts

    @property
    def waiters(self) -> Waiters:
        return self._listener.waiters

    def listen(self) -> None:
        self._listener.start()

    def attempt(self, ask: Ask) -> Answer:
        return self._answer(ATTEMPT.run(self._server.link, *self._attempt(ask)))

    async def aattempt(self, ask: Ask) -> Answer:
        return self._answer(await ATTEMPT.arun(self._server.alink(), *self._attempt(ask)))

    def free(self, token: str) -> bool:
        return bool(FREE.run(self._server.link, *self._token(token)))

    async def afree(self, token: str) -> bool:
        return bool(await FREE.arun(self._server.alink(), *self._token(token)))

    def leave(self, token: str) -> None:
        LEAVE.run(self._server.link, *self._token(token))

    async def aleave(self, token: str) -> None:
        await LEAVE.arun(self._server.alink(), *self._token(token))

    def extend(self, token: str, lease_s: float) -> bool:
        return bool(EXTEND.run(self._server.link, self._keys[:1], token, _ms(lease_s)))

    async def aextend(self, token: str, lease_s: float) -> bool:
        return bool(await EXTEND.arun(self._server.alink(), self._keys[:1], token, _ms(lease_s)))

    def owner(self) -> str:
        return _text(self._server.link.read("GET", self.stem))

    async def aowner(self) -> str:
        return _text(await self._server.alink().read("GET", self.stem))

    def _token(self, token: str) -> tuple[Any, ...]:
        return [*self._keys, f"{self.stem}:gone:{token}"], token, self._channel, self._counts

    def _attempt(self, ask: Ask) -> tuple[Any, ...]:
        return (
            *self._token(ask.token),
            _ms(ask.lease_s),
            "1" if ask.fifo else "0",
            int(ask.arrival),
            "1" if ask.waits else "0",
        )

    def _answer(self, reply: list[int]) -> Answer:
        if reply[0]:
            return Answer(reply[1])
        _, left_ms, arrival, before = reply
        poll_s = _POLL_S if self._listener.hears else _DEAF_POLL_S
        return Answer(0, min(staggered_s(left_ms / 1000, before), poll_s), arrival, before)


class Listener:
    """This process's subscription on one server. Its thread lives while somebody waits, and a little longer."""

    def __init__(self, server: Server, prefix: str) -> None:
        self._server, self.stem = server, f"{prefix}.lock-turns:"
        # Of those who heard a PUBLISH a node of a cluster counts only its own.
        self.counts = "0" if addresses.parse(server.url).kind == addresses.CLUSTER else "1"
        self.hears = False
        self.reset()

    def reset(self) -> None:
        """In a forked child: the thread and the waiters are the parent's, the socket is closed here only."""
        self.hears = False
        self.waiters = Waiters()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Have the thread running. It rings all waiters once it hears, so nobody has to wait for that."""
        with self._guard:
            if self._thread is None:
                self._thread = started(self._run, "cache-lock-turns")

    def _run(self) -> None:
        failures = 0
        while not self._ended():
            try:
                self._listen()
                failures = 0
            except (redis.RedisError, OSError) as error:
                failures = 1 if self.hears else failures + 1
                if self.hears:
                    log.warning("lock_listener_lost", error=type(error).__name__)
                self.hears = False
                time.sleep(min(0.05 * 2**failures, 1.0) if failures < 5 else 1.0)
            self.hears = False

    def _ended(self) -> bool:
        with self._guard:
            if len(self.waiters):
                return False
            self.hears, self._thread = False, None
            return True

    def _listen(self) -> None:
        """Subscribe and ring until nobody has waited for a while; raises redis.RedisError."""
        pool = random.choice(list(self._server.pools().values()))  # noqa: S311  # any node of a cluster hears all
        connection = pool.connection_class(**pool.connection_kwargs | _LISTENING)
        try:
            connection.send_command("SUBSCRIBE", self.stem + process_name())
            connection.read_response()
            self.hears = True
            self.waiters.ring_all()  # what was published before now is lost
            self._ring(connection)
        finally:
            with contextlib.suppress(redis.RedisError, OSError):
                connection.disconnect()

    def _ring(self, connection: AbstractConnection) -> None:
        is_asked = False
        while True:
            try:
                kind, *rest = connection.read_response(timeout=_QUIET_S, disconnect_on_error=False)
            except redis.TimeoutError:
                if is_asked:
                    raise
                if not len(self.waiters):
                    return
                connection.send_command("PING", check_health=False)
                is_asked = True
                continue
            is_asked = False
            if kind == b"message":
                self.waiters.ring(_text(rest[-1]))


_listeners: dict[tuple[str, str], Listener] = {}
_all_listeners: weakref.WeakSet[Listener] = weakref.WeakSet()


def _listener(server: Server, prefix: str) -> Listener:
    key = (server.url, prefix)
    found = _listeners.get(key)
    if found is None:
        found = _listeners.setdefault(key, Listener(server, prefix))
        _all_listeners.add(found)
    return found


def _ms(seconds: float) -> int:
    return max(int(seconds * 1000), 1)


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


def _forked() -> None:
    for listener in list(_all_listeners):
        listener.reset()


os.register_at_fork(after_in_child=_forked)
