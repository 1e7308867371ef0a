from __future__ import annotations

import asyncio
import os
import threading

import pytest
import redis
from django.conf import LazySettings
from django.core.cache import cache, caches

from cache_app import connections
from tests import servers


def test_client__twice__is_one_pool_with_the_settings_bounds(settings: LazySettings) -> None:
    pool = connections.client().connection_pool
    assert connections.client().connection_pool is pool
    assert isinstance(pool, redis.BlockingConnectionPool)
    assert pool.max_connections == 50
    assert pool.connection_kwargs["socket_timeout"] == 3.0


@pytest.mark.parametrize(
    ("url", "kind", "host"),
    [
        ("valkey://h:1/2", redis.connection.Connection, "h"),
        ("valkeys://h:1/2", redis.connection.SSLConnection, "h"),
        ("rediss://h:1/2", redis.connection.SSLConnection, "h"),
        ("redis://h:1/2", redis.connection.Connection, "h"),
        ("unix:///s?db=2", redis.connection.UnixDomainSocketConnection, None),
    ],
)
def test_client__url_of_each_scheme__is_understood(url: str, kind: type, host: str | None) -> None:
    pool = connections.client(url).connection_pool
    assert pool.connection_class is kind
    assert pool.connection_kwargs["db"] == 2
    assert pool.connection_kwargs.get("host") == host


def test_client__server_on_tcp__answers() -> None:
    with servers.valkey(port=servers.free_port(), appendonly=False) as url:
        connection = connections.client(url.replace("redis://", "valkey://"))
        assert connection.ping()
        connection.connection_pool.disconnect()


def test_client__after_a_fork__child_and_parent_use_their_own_connections(prefix: str) -> None:
    connections.client().set(prefix, 0)
    child = os.fork()
    if child == 0:
        try:
            for _ in range(50):
                connections.client().incr(prefix)
        finally:
            os._exit(0)
    for _ in range(50):
        connections.client().incr(prefix)
    os.waitpid(child, 0)
    assert connections.client().get(prefix) == b"100"


async def test_aclient__same_loop__is_one_client() -> None:
    assert connections.aclient() is connections.aclient()
    assert await connections.aclient().ping()


def test_aclient__loop_ends__its_connections_are_closed(prefix: str) -> None:
    name = prefix.strip(":")

    async def connect() -> None:
        await connections.aclient().client_setname(name)
        assert name in [found["name"] for found in connections.client().client_list()]

    asyncio.run(connect())
    assert name not in [found["name"] for found in connections.client().client_list()]


def test_cache__two_hundred_threads__all_get_a_connection() -> None:
    cache.set("n", 0)
    failures: list[Exception] = []

    def increment() -> None:
        try:
            cache.incr("n")
        except redis.RedisError as error:
            failures.append(error)

    threads = [threading.Thread(target=increment) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert cache.get("n") == 200


async def test_aincr__two_hundred_at_once__none_is_lost_and_the_ttl_stays() -> None:
    await cache.aset("n", 0, timeout=60)
    await asyncio.gather(*(cache.aincr("n") for _ in range(200)))
    await asyncio.gather(*(cache.adecr("n") for _ in range(50)))
    assert await cache.aget("n") == 150
    assert 50 <= await connections.aclient().ttl(caches["default"].make_key("n")) <= 60


async def test_aincr__missing_key__raises_value_error() -> None:
    with pytest.raises(ValueError, match="not found"):
        await cache.aincr("absent")


async def test_aincr__not_an_integer__is_still_counted() -> None:
    await cache.aset("half", 1.5)
    assert await cache.aincr("half") == 2.5


def test_clear__keys_of_others_in_the_database__are_left_alone(own_prefix: str) -> None:
    others = [f"{own_prefix}x:1:a", "celery-like-list:" + own_prefix]
    for key in others:
        connections.client().set(key, "theirs")
    cache.set_many({f"k{n}": n for n in range(2500)})
    cache.clear()
    assert list(connections.client().scan_iter(match=f"{own_prefix}:*")) == []
    assert connections.client().exists(*others) == 2
    connections.client().unlink(*others)


def test_delete_pattern__matching_keys__are_counted_and_gone() -> None:
    cache.set_many({"user:1": 1, "user:2": 2, "other": 3})
    assert cache.delete_pattern("user:*") == 2
    assert cache.get_many(["user:1", "other"]) == {"other": 3}


def test_get__corrupt_entry__is_a_miss() -> None:
    connections.client().set(caches["default"].make_key("bad"), b"{not json")
    cache.set("good", {"a": [1]})
    assert cache.get("bad", "default") == "default"
    assert cache.get_many(["bad", "good"]) == {"good": {"a": [1]}}


def test_set__value_without_a_json_form__raises_type_error() -> None:
    with pytest.raises(TypeError):
        cache.set("k", {1, 2})


def test_glob_escape__special_characters__match_only_themselves(prefix: str) -> None:
    connections.client().set(f"{prefix}a*[b]?", 1)
    connections.client().set(f"{prefix}aXXbX", 1)
    found = list(connections.client().scan_iter(match=prefix + connections.glob_escape("a*[b]?")))
    assert found == [f"{prefix}a*[b]?".encode()]
