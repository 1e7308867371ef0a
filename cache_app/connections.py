"""Connections to Redis or Valkey: one bounded pool per process, in async code one per event loop."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncGenerator
from typing import Any

import redis
import redis.asyncio
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from .conf import conf

_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}  # redis-py knows the protocol, not the name
_SCAN_COUNT = 1000
_guard = threading.Lock()
_pools: dict[tuple[str, str, str], redis.BlockingConnectionPool] = {}
_clients: dict[tuple[str, str], redis.Redis] = {}
_loops: dict[
    asyncio.AbstractEventLoop, dict[tuple[str, str], tuple[redis.asyncio.Redis, AsyncGenerator[None]]]
] = {}


def default_url() -> str:
    """LOCATION of CACHES["default"]; the first one where it lists a primary and replicas."""
    location = settings.CACHES["default"]["LOCATION"]
    return first_of(location)


def key_prefix() -> str:
    """KEY_PREFIX of CACHES["default"]: what our keys begin with, and all that `clear` removes."""
    return str(settings.CACHES["default"].get("KEY_PREFIX", ""))


def client(url: str | None = None, *, pool: str = "main") -> redis.Redis:
    """A synchronous client on this process's pool for `url` (redis, rediss, valkey, valkeys or unix).

    pool: "main", or "wait" for commands that block (BLPOP): they must not use up the connections which others need.
    Cheap to call, safe in threads and after a fork. Nothing is sent twice: a dead idle connection is replaced before
    it is used, a connection that dies under a command raises redis.ConnectionError.
    """
    key = (url or default_url(), pool)
    found = _clients.get(key)
    if found is None:  # two threads may both make one; they share the pool, so either will do
        found = _clients[key] = redis.Redis(connection_pool=pool_of(*key))
    return found


def aclient(url: str | None = None, *, pool: str = "main") -> redis.asyncio.Redis:
    """The running loop's client for `url`; its connections are closed when the loop ends (asyncio.run, uvicorn)."""
    loop = asyncio.get_running_loop()
    key = (url or default_url(), pool)
    with _guard:
        for ended in [known for known in _loops if known.is_closed()]:
            del _loops[ended]
        clients = _loops.setdefault(loop, {})
        if key not in clients:
            made = redis.asyncio.Redis.from_pool(
                redis.asyncio.BlockingConnectionPool.from_url(**_options(key[0]))
            )
            clients[key] = (made, _closed_with_the_loop(made))
        return clients[key][0]


def pool_of(url: str, purpose: str, **extra: Any) -> redis.BlockingConnectionPool:
    key = (url, purpose, repr(sorted(extra.items(), key=lambda item: item[0])))
    found = _pools.get(key)
    if found is not None:
        return found
    with _guard:
        if key not in _pools:
            _pools[key] = redis.BlockingConnectionPool.from_url(**(_options(url) | extra))
        return _pools[key]


def _options(url: str) -> dict[str, Any]:
    """Arguments of a pool's from_url. The options of the URL's own query win over these."""
    limits = conf()
    scheme, separator, rest = url.partition("://")
    return {
        "url": f"{_SCHEMES.get(scheme, scheme)}{separator}{rest}",
        "max_connections": limits.MAX_CONNECTIONS,
        "timeout": limits.POOL_WAIT_S,
        "socket_connect_timeout": limits.CONNECT_TIMEOUT_S,
        "socket_timeout": limits.COMMAND_TIMEOUT_S,
        # redis-py's default is three retries with up to 10 s between them: a Redis that is down would hold every
        # caller, and an INCR whose answer got lost would count twice.
        "retry": Retry(NoBackoff(), 0),
        # RESP3 changes the shape of replies and asks Redis for maintenance messages that Valkey does not know.
        "protocol": 2,
    }


def _closed_with_the_loop(made: redis.asyncio.Redis) -> AsyncGenerator[None]:
    """Park an async generator at its yield: `loop.shutdown_asyncgens()` resumes it, and it closes the client."""

    async def keeper() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await made.aclose(close_connection_pool=True)

    parked = keeper()
    with contextlib.suppress(StopIteration):
        parked.__anext__().send(None)  # runs up to the yield without awaiting anything
    return parked


def first_of(location: Any) -> str:
    return str(location.split(",")[0] if isinstance(location, str) else next(iter(location)))


# --- removing keys -------------------------------------------------------------------------------------------------


def glob_escape(text: str) -> str:
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)


def unlink_matching(connection: redis.Redis, pattern: str) -> int:
    """Remove the keys that match the glob, by SCAN and UNLINK in chunks so that Redis never stalls; how many."""
    removed, chunk = 0, []
    for key in connection.scan_iter(match=pattern, count=_SCAN_COUNT):
        chunk.append(key)
        if len(chunk) >= _SCAN_COUNT:
            removed += connection.unlink(*chunk)
            chunk.clear()
    return removed + (connection.unlink(*chunk) if chunk else 0)


def everything_of(prefix: str) -> str:
    """The glob of all keys under a KEY_PREFIX, of every version."""
    return f"{glob_escape(prefix)}:*"
