"""Behind a real Sentinel: it names another primary, and the cache goes there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.conf import LazySettings
from django.core.cache import caches

from cache_app import connections
from cache_app.redis_store import RedisStore
from cache_app.store import StoreFailed
from tests import servers
from tests.servers import ValkeySentinels

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def group() -> Iterator[ValkeySentinels]:
    with servers.valkey_sentinels(down_after_s=60) as started:
        yield started


def alias(group: ValkeySentinels, prefix: str, **options: Any) -> dict[str, Any]:
    return {
        "BACKEND": "cache_app.redis.BrainRedisCache",
        "LOCATION": f"redis://{group.service}/0",
        "KEY_PREFIX": prefix,
        "OPTIONS": {"SENTINELS": [("127.0.0.1", group.sentinel.port)]} | options,
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"SENTINEL_SERVICE": "main"},
        {  # as django-redis has it
            "CLIENT_CLASS": "django_redis.client.SentinelClient",
            "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
            "SENTINEL_KWARGS": {"socket_timeout": 2},
        },
    ],
)
def test_backend__through_sentinel__works_in_both_halves(
    group: ValkeySentinels, settings: LazySettings, own_prefix: str, options: dict[str, Any]
) -> None:
    settings.CACHES = settings.CACHES | {"watched": alias(group, own_prefix, **options)}
    cache = caches["watched"]
    cache.set("k", [1], 60)
    assert cache.get("k") == [1]

    async def ask() -> Any:
        await cache.aset("k", [2], 60)
        return await cache.aget("k")

    assert asyncio.run(ask()) == [2]
    assert cache.client.get_client().get(cache.make_key("k")) == b"\xc0[2]"
    with group.primary.client() as primary:
        assert primary.exists(cache.make_key("k")) == 1
    with cache.lock("job") as lock:
        assert lock.owned()


def test_default_url__alias_behind_sentinels__is_understood_by_the_clients(
    group: ValkeySentinels, settings: LazySettings, own_prefix: str
) -> None:
    settings.CACHES = {"default": alias(group, own_prefix)}
    assert connections.default_url() == group.url
    assert connections.client().info("server")["tcp_port"] == group.primary.port

    async def port() -> int:
        info = await connections.aclient().info("server")
        return int(info["tcp_port"])

    assert asyncio.run(port()) == group.primary.port


def test_store__sentinel_is_gone__is_store_failed() -> None:
    url = f"redis+sentinel://127.0.0.1:{servers.free_port()}/main/0"
    store = RedisStore(url, failures=100)
    with pytest.raises(StoreFailed) as failed:
        store.get("k")
    assert isinstance(failed.value.__cause__, redis.ConnectionError)
    with pytest.raises(StoreFailed):
        asyncio.run(store.aget("k"))


def test_failover__primary_is_killed__both_halves_write_to_the_new_one(prefix: str) -> None:
    with servers.valkey_sentinels(down_after_s=60) as group:
        options = {"socket_timeout": 5, "socket_connect_timeout": 5}
        store = RedisStore(group.url, failures=3, open_s=0.2, options=options)

        async def ride() -> None:
            await store.aset(f"{prefix}a", b"1", None)
            store.set(f"{prefix}s", b"1", None)
            with group.primary.client() as primary:
                assert primary.execute_command("WAIT", 1, 30_000) == 1
            group.replace_after(0.5)
            os.kill(group.primary.pid, signal.SIGKILL)
            deadline = time.monotonic() + 120
            while not await _written(store, prefix):
                assert time.monotonic() < deadline, "nobody wrote to the new primary"
                await asyncio.sleep(0.05)
            assert await store.aget(f"{prefix}a") == b"2"
            assert store.get(f"{prefix}s") == b"2"

        asyncio.run(ride())
        with group.replica.client() as replica:
            assert replica.info("replication")["role"] == "master"
            assert replica.mget(f"{prefix}a", f"{prefix}s") == [b"2", b"2"]


async def _written(store: RedisStore, prefix: str) -> bool:
    with contextlib.suppress(StoreFailed):
        await store.aset(f"{prefix}a", b"2", None)
        return store.set(f"{prefix}s", b"2", None)
    return False
