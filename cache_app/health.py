"""Whether Redis answers, for /readyz and `doctor`."""

from __future__ import annotations

import time

import redis
from redis._parsers.helpers import parse_info

from foundation.health import Health

from . import connections


def check() -> Health:
    """A cluster of which some primaries do not answer is degraded: the other keys are served, and a replica takes over."""
    started = time.monotonic()
    products: list[str] = []
    failed: list[str] = []
    try:
        nodes = connections.link(connections.default_url()).primaries()
        for node in nodes:
            try:
                products.append(product(parse_info(node.read("INFO", "server"))))
            except redis.RedisError as error:
                failed.append(_line(error))
    except (redis.RedisError, ValueError) as error:
        failed.append(_line(error))
    detail = [*products, *failed, "no node serves any key"][0]
    if products and len(nodes) > 1:
        state = f"; {len(failed)} do not answer: {failed[0]}" if failed else ""
        detail = f"{detail}, a cluster of {len(nodes)} primaries{state}"
    took_ms = round((time.monotonic() - started) * 1000, 2)
    return Health("redis", bool(products), detail, took_ms, degraded=bool(products and failed))


def product(server: dict[str, object]) -> str:
    """ "Valkey 9.1.2" or "Redis 7.4.1": Valkey also announces the Redis version that it is compatible with."""
    if "valkey_version" in server:
        return f"Valkey {server['valkey_version']}"
    return f"Redis {server.get('redis_version', '?')}"


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
