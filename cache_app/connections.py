"""Connections to Redis or Valkey: bounded, one set per process, in async code one per event loop.

    client(url), aclient(url)   redis-py's clients, for whoever speaks its commands (gateway, queue, locks)
    link(url), alink(url)       the lean way of the cache's store: link.py, alink.py, cluster.py

A URL names one server, a primary behind Sentinels, or a cluster: addresses.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.connection
import redis.asyncio.sentinel
import redis.sentinel
from django.conf import settings
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import parse_url
from redis.exceptions import RedisClusterException, SlotNotCoveredError
from redis.retry import Retry

from . import addresses
from .addresses import CLUSTER, SENTINEL, Node, Servers
from .alink import AsyncLink
from .breaker import Breaker
from .cluster import AsyncClusterLink, ClusterLink
from .conf import conf
from .line import Line
from .link import Link

_SCAN_COUNT = 1000
_NO_LIMIT = 2**31 - 1  # of a pool that only makes connections: the link counts them
_OF_THE_LINK = ("timeout", "sentinel_kwargs", "parser_class")
_guard = threading.Lock()
_pools: dict[tuple[str, str, str], redis.BlockingConnectionPool] = {}
_clients: dict[tuple[str, str], redis.Redis] = {}
_links: dict[tuple[Any, ...], Link | ClusterLink] = {}
_breakers: dict[tuple[Any, ...], Breaker] = {}
_loops: dict[asyncio.AbstractEventLoop, dict[tuple[Any, ...], tuple[Any, AsyncGenerator[None]]]] = {}
_of_the_parent: list[Any] = []


def default_url() -> str:
    """The servers of CACHES["default"]; the first one where it lists a primary and replicas."""
    default = settings.CACHES["default"]
    return addresses.of_alias(default["LOCATION"], default.get("OPTIONS", {}))


def key_prefix() -> str:
    """KEY_PREFIX of CACHES["default"]: what our keys begin with, and all that `clear` removes."""
    return str(settings.CACHES["default"].get("KEY_PREFIX", ""))


# --- redis-py's clients --------------------------------------------------------------------------------------------------


def client(url: str | None = None, *, pool: str = "main", **extra: Any) -> redis.Redis:
    """A synchronous client on this process's pool for `url`; of a cluster it is a redis.cluster.RedisCluster.

    pool: "main", or "wait" for commands that block (BLPOP): they must not use up the connections which others need.
    Cheap to call, safe in threads and after a fork. Nothing is sent twice: a dead idle connection is replaced before
    it is used, a connection that dies under a command raises redis.ConnectionError.
    """
    key = (url or default_url(), pool if not extra else f"{pool} {sorted(extra.items())!r}")
    found = _clients.get(key)
    if found is None:  # two threads may both make one; they share the pool, so either will do
        found = _clients[key] = _made_client(key, pool, extra)
    return found


def aclient(url: str | None = None, *, pool: str = "main") -> redis.asyncio.Redis:
    """The running loop's client for `url`; its connections are closed when the loop ends (asyncio.run, uvicorn)."""
    url = url or default_url()

    found: redis.asyncio.Redis = _of_the_loop((url, pool), lambda: _made_aclient(url))
    return found


def pool_of(url: str, purpose: str, **extra: Any) -> redis.BlockingConnectionPool:
    """extra: arguments of the pool and its connections; the options of the URL's own query win over them."""
    key = (url, purpose, repr(sorted(extra.items(), key=lambda item: item[0])))
    found = _pools.get(key)
    if found is not None:
        return found
    with _guard:
        if key not in _pools:
            _pools[key] = _made_pool(addresses.parse(url), extra)
        return _pools[key]


class _SentinelPool(redis.sentinel.SentinelConnectionPool, redis.BlockingConnectionPool):
    """Callers wait for a free connection, and are led to the primary that the Sentinels name."""


class _AsyncSentinelPool(redis.asyncio.sentinel.SentinelConnectionPool, redis.asyncio.BlockingConnectionPool):
    """The same for an event loop."""


def _made_pool(servers: Servers, extra: Mapping[str, Any]) -> redis.BlockingConnectionPool:
    options = _pool_options() | dict(extra)
    if servers.kind == SENTINEL:
        sentinel, arguments = _sentinel(servers, options, redis.sentinel.Sentinel)
        return _SentinelPool(servers.service, sentinel, **arguments)
    options.pop("sentinel_kwargs", None)
    return redis.BlockingConnectionPool.from_url(url=servers.url, **options)


class _Cluster(RedisCluster):
    """When no node answers redis-py raises what is no RedisError: nobody who is ready for an outage is ready for that."""

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().execute_command(*args, **kwargs)
        except RedisClusterException as error:
            if isinstance(error.__cause__, redis.RedisError | OSError) or isinstance(
                error, SlotNotCoveredError
            ):
                raise redis.ConnectionError(str(error)) from error
            raise  # a command that has to be written differently for a cluster


def _made_client(key: tuple[str, str], purpose: str, extra: Mapping[str, Any]) -> redis.Redis:
    servers = addresses.parse(key[0])
    if servers.kind != CLUSTER:
        return redis.Redis(connection_pool=pool_of(key[0], purpose, **extra))
    with _guard:
        found = _clients.get(key)
        if found is not None:
            return found
        try:
            return _Cluster(
                url=servers.url,
                startup_nodes=[ClusterNode(host, port) for host, port in servers.nodes],
                connection_pool_class=redis.BlockingConnectionPool,
                **_pool_options() | dict(extra),
            )  # type: ignore[return-value]
        except RedisClusterException as error:  # no RedisError, though no node answered
            raise redis.ConnectionError(str(error)) from error


def _made_aclient(url: str) -> tuple[Any, Callable[[], Awaitable[Any]]]:
    servers, options = addresses.parse(url), _pool_options()
    made: Any
    if servers.kind == CLUSTER:
        nodes = [redis.asyncio.cluster.ClusterNode(host, port) for host, port in servers.nodes]
        del options["timeout"]
        made = redis.asyncio.RedisCluster.from_url(servers.url, startup_nodes=nodes, **options)
        return made, made.aclose
    if servers.kind == SENTINEL:
        sentinel, arguments = _sentinel(servers, options, redis.asyncio.sentinel.Sentinel)
        made = redis.asyncio.Redis.from_pool(_AsyncSentinelPool(servers.service, sentinel, **arguments))
        return made, lambda: _close_all([made, *sentinel.sentinels])
    made = redis.asyncio.Redis.from_pool(
        redis.asyncio.BlockingConnectionPool.from_url(url=servers.url, **options)
    )
    return made, made.aclose


async def _close_all(clients: Iterable[Any]) -> None:
    for one in clients:
        await one.aclose(close_connection_pool=True)


def _pool_options() -> dict[str, Any]:
    limits = conf()
    return {"max_connections": limits.MAX_CONNECTIONS, "timeout": limits.POOL_WAIT_S} | _dial_options()


def _dial_options() -> dict[str, Any]:
    limits = conf()
    return {
        "socket_connect_timeout": limits.CONNECT_TIMEOUT_S,
        "socket_timeout": limits.COMMAND_TIMEOUT_S,
        # redis-py's default is three retries with up to 10 s between them: a Redis that is down would hold every
        # caller, and an INCR whose answer got lost would count twice.
        "retry": Retry(NoBackoff(), 0),
        # RESP3 changes the shape of replies and asks Redis for maintenance messages that Valkey does not know.
        "protocol": 2,
    }


def _sentinel(servers: Servers, options: Mapping[str, Any], kind: Any) -> tuple[Any, dict[str, Any]]:
    """redis-py's Sentinel, and the arguments of a pool of connections to the primary."""
    arguments = {**options, **parse_url(servers.url)}
    for name in ("host", "port", "path", "service_name"):
        arguments.pop(name, None)
    if arguments.pop("connection_class", None) is not None:
        arguments["ssl"] = True
    asking = _dial_options() | dict(arguments.pop("sentinel_kwargs", None) or {})
    return kind(list(servers.nodes), sentinel_kwargs=asking), arguments


# --- the store's links ---------------------------------------------------------------------------------------------------


def link(
    url: str, *, failures: int = 3, open_s: float = 2.0, options: Mapping[str, Any] | None = None
) -> Link | ClusterLink:
    """This process's way to the servers of `url`. failures, open_s: of its breaker, which `alink` shares.

    options: arguments of redis-py's connections beyond those of the URL, and max_connections and timeout of the link.
    """
    key = (url, failures, open_s, repr(options))
    found = _links.get(key)
    if found is not None:
        return found
    with _guard:
        if key not in _links:
            _links[key] = _made_link(addresses.parse(url), failures, open_s, options or {})
        return _links[key]


def alink(
    url: str, *, failures: int = 3, open_s: float = 2.0, options: Mapping[str, Any] | None = None
) -> AsyncLink | AsyncClusterLink:
    """The running loop's, closed when the loop ends."""
    loop = asyncio.get_running_loop()
    key = (url, failures, open_s, repr(options))
    clients = _loops.get(loop)
    if clients is not None and key in clients:
        found: AsyncLink | AsyncClusterLink = clients[key][0]
        return found
    servers = addresses.parse(url)
    made: AsyncLink | AsyncClusterLink = _of_the_loop(
        key, lambda: _made_alink(servers, failures, open_s, options or {})
    )
    return made


def aline() -> Line | None:
    """A line of the running loop to the default server, not dialled yet and nobody else's; closed when the loop ends. None
    for a cluster, which no single line leads to."""
    made = aclient()
    if isinstance(made, redis.asyncio.cluster.RedisCluster):
        return None
    line = Line(made.connection_pool.make_connection())
    _of_the_loop(("lines",), _no_lines).add(line)
    return line


def _no_lines() -> tuple[weakref.WeakSet[Line], Callable[[], Awaitable[Any]]]:
    lines: weakref.WeakSet[Line] = weakref.WeakSet()

    async def close() -> None:
        for line in list(lines):
            line.close()

    return lines, close


def pools_of(url: str, options: Mapping[str, Any] | None = None) -> dict[str, redis.ConnectionPool]:
    """{server: a pool that dials it}, one per primary: for connections of somebody's own, beside the bounded ones."""
    servers = addresses.parse(url)
    if servers.kind != CLUSTER:
        return {servers.name: _factory(servers, options or {})}
    nodes = [_node(found.name) for found in link(url, options=options).primaries()]
    return {_at(node): _factory(servers, options or {}, node) for node in nodes}


def breaker_of(name: str, failures: int, open_s: float) -> Breaker:
    return _breakers.setdefault((name, failures, open_s), Breaker(failures, open_s))


def breakers() -> dict[str, str]:
    """{server: why its breaker is open}; empty while all are closed."""
    now = time.monotonic()
    return {key[0]: breaker.why(now) for key, breaker in list(_breakers.items()) if breaker.why(now)}


def _made_link(
    servers: Servers, failures: int, open_s: float, options: Mapping[str, Any]
) -> Link | ClusterLink:
    bounds = _bounds(servers, options)

    def to(node: Node | None) -> Link:
        name = servers.name if node is None else _at(node)
        make = _factory(servers, options, node).make_connection
        breaker = breaker_of(name, failures, open_s)
        return Link(name, make, breaker, limit=bounds["max_connections"], wait_s=bounds["timeout"])

    return ClusterLink(servers.nodes, to) if servers.kind == CLUSTER else to(None)


def _made_alink(
    servers: Servers, failures: int, open_s: float, options: Mapping[str, Any]
) -> tuple[Any, Callable[[], Awaitable[Any]]]:
    bounds = _bounds(servers, options)
    sentinels: list[Any] = []

    def to(node: Node | None) -> AsyncLink:
        name = servers.name if node is None else _at(node)
        pool, asked = _afactory(servers, options, node)
        sentinels.extend(asked)
        return AsyncLink(
            name,
            pool.make_connection,
            breaker_of(name, failures, open_s),
            limit=bounds["max_connections"],
            timeout_s=bounds["socket_timeout"],
            dial_s=bounds["socket_connect_timeout"] + bounds["socket_timeout"],
        )

    made: Any = AsyncClusterLink(servers.nodes, to) if servers.kind == CLUSTER else to(None)

    async def close() -> None:
        await made.aclose()
        await _close_all(sentinels)

    return made, close


def _bounds(servers: Servers, options: Mapping[str, Any]) -> dict[str, Any]:
    """max_connections, and in seconds timeout (for a free one), socket_timeout and socket_connect_timeout."""
    return _pool_options() | dict(options) | parse_url(servers.url)


def _factory(servers: Servers, options: Mapping[str, Any], node: Node | None = None) -> redis.ConnectionPool:
    """A pool of redis-py's that makes connections and keeps none."""
    given = _dial_options() | dict(options)
    if servers.kind == SENTINEL:
        sentinel, arguments = _sentinel(servers, given, redis.sentinel.Sentinel)
        return redis.sentinel.SentinelConnectionPool(servers.service, sentinel, **_unbounded(arguments))
    arguments = {**given, **parse_url(servers.url), **_place(node)}
    return redis.ConnectionPool(**_unbounded(arguments))


def _afactory(
    servers: Servers, options: Mapping[str, Any], node: Node | None
) -> tuple[redis.asyncio.ConnectionPool, list[Any]]:
    """And the clients of Sentinels that it asks. Its connections have no timeout: the link watches all that share one."""
    given = _dial_options() | dict(options)
    if servers.kind == SENTINEL:
        sentinel, arguments = _sentinel(servers, given, redis.asyncio.sentinel.Sentinel)
        arguments = _unbounded(arguments) | {"socket_timeout": None}
        pool = redis.asyncio.sentinel.SentinelConnectionPool(servers.service, sentinel, **arguments)
        return pool, list(sentinel.sentinels)
    arguments = {**given, **redis.asyncio.connection.parse_url(servers.url), **_place(node)}
    return redis.asyncio.ConnectionPool(**_unbounded(arguments) | {"socket_timeout": None}), []


def _unbounded(arguments: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in arguments.items() if name not in _OF_THE_LINK}
    return kept | {"max_connections": _NO_LIMIT}


def _place(node: Node | None) -> dict[str, Any]:
    return {} if node is None else {"host": node[0], "port": node[1]}


def _at(node: Node) -> str:
    return f"{node[0]}:{node[1]}"


def _node(name: str) -> Node:
    host, _, port = name.rpartition(":")
    return host, int(port)


# --- event loops and forks -----------------------------------------------------------------------------------------------


def _of_the_loop(key: tuple[Any, ...], make: Callable[[], tuple[Any, Callable[[], Awaitable[Any]]]]) -> Any:
    loop = asyncio.get_running_loop()
    with _guard:
        for ended in [known for known in _loops if known.is_closed()]:
            del _loops[ended]
        clients = _loops.setdefault(loop, {})
        if key not in clients:
            made, close = make()
            clients[key] = (made, _closed_with_the_loop(close))
        return clients[key][0]


def _closed_with_the_loop(close: Callable[[], Awaitable[Any]]) -> AsyncGenerator[None]:
    """Park an async generator at its yield: `loop.shutdown_asyncgens()` resumes it, and it closes what it was given."""

    async def keeper() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await close()

    parked = keeper()
    with contextlib.suppress(StopIteration):
        parked.__anext__().send(None)  # runs up to the yield without awaiting anything
    return parked


def _after_fork() -> None:
    """The child dials for itself. redis-py's own pools see to themselves."""
    global _guard
    _guard = threading.Lock()  # the thread that held it is not in the child
    # Kept, never closed: closing would tell the parent's epoll to forget its own sockets.
    _of_the_parent.append(dict(_loops))
    _loops.clear()
    for cluster in [key for key, found in _clients.items() if isinstance(found, RedisCluster)]:
        _of_the_parent.append(_clients.pop(cluster))
    for breaker in _breakers.values():
        breaker.reset()
    for known in _links.values():
        known.reset()


os.register_at_fork(after_in_child=_after_fork)


# --- removing keys -------------------------------------------------------------------------------------------------------


def first_of(location: Any) -> str:
    return addresses.of_alias(location, {})


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
