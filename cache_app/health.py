"""Whether Redis answers, for /readyz and `doctor`."""

from __future__ import annotations

import time

import redis

from foundation.health import Health

from .connections import client


def check() -> Health:
    started = time.monotonic()
    try:
        detail = product(client().info("server"))
    except (redis.RedisError, ValueError) as error:
        detail, ok = f"{type(error).__name__}: {error}".partition("\n")[0], False
    else:
        ok = True
    return Health("redis", ok, detail, round((time.monotonic() - started) * 1000, 2))


def product(server: dict[str, object]) -> str:
    """ "Valkey 9.1.2" or "Redis 7.4.1": Valkey also announces the Redis version that it is compatible with."""
    if "valkey_version" in server:
        return f"Valkey {server['valkey_version']}"
    return f"Redis {server.get('redis_version', '?')}"
