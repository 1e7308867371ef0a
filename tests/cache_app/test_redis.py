from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from unittest import mock

import pytest
import redis
from django.conf import LazySettings
from django.core.cache import cache, caches
from django_redis import get_redis_connection

from cache_app import connections, stats
from cache_app.locks import LockTimeout
from cache_app.redis import BrainRedisCache
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


# --- the eleven defects of django-redis 7.0 that were measured, one by one -----------------------------------------------


async def test_defect_1_aincr__two_hundred_at_once__none_is_lost_and_the_ttl_stays() -> None:
    """There: a get and a set, so that 200 increments gave 1, and the TTL began anew."""
    await cache.aset("n", 0, timeout=60)
    await asyncio.gather(*(cache.aincr("n") for _ in range(200)))
    await asyncio.gather(*(cache.adecr("n") for _ in range(50)))
    assert await cache.aget("n") == 150
    assert 10 <= await connections.aclient().ttl(caches["default"].make_key("n")) <= 60


async def test_defect_2_aget_many__twenty_keys__are_one_command_without_a_thread() -> None:
    """There: one GET per key, in a thread: 32 times slower than one MGET."""
    await cache.aset_many({f"k{n}": n for n in range(20)})
    before = await connections.aclient().info("commandstats")
    with mock.patch("asgiref.sync.SyncToAsync.__call__", side_effect=AssertionError("in a thread")):
        assert await cache.aget_many([f"k{n}" for n in range(20)]) == {f"k{n}": n for n in range(20)}
    after = await connections.aclient().info("commandstats")
    assert _calls(after, "mget") - _calls(before, "mget") == 1
    assert _calls(after, "get") == _calls(before, "get")


def _calls(statistics: Any, command: str) -> int:
    return int(statistics.get(f"cmdstat_{command}", {"calls": 0})["calls"])


async def test_defect_3_aget_or_set__coroutine_function__is_awaited() -> None:
    """There: TypeError, "cannot pickle 'coroutine' object"."""

    async def load() -> list[int]:
        await asyncio.sleep(0)
        return [1]

    assert await cache.aget_or_set("k", load) == [1]
    assert await cache.aget("k") == [1]


def test_defect_4_get_or_set__fifty_threads_on_a_cold_key__one_loads() -> None:
    """There: 188 of 200 threads ran the loader."""
    loads: list[int] = []

    def load() -> int:
        loads.append(1)
        time.sleep(0.05)
        return 7

    found = _in_threads(50, lambda: cache.get_or_set("cold", load))
    assert found == [7] * 50
    assert len(loads) == 1


def test_defect_5_pool__two_hundred_threads__all_get_a_connection() -> None:
    """There: redis-py's pool raises beyond 100 connections, and 99 of 200 threads failed."""
    cache.set("n", 0)
    assert sorted(_in_threads(200, lambda: cache.incr("n"))) == list(range(1, 201))
    assert cache.get("n") == 200


def _in_threads(count: int, call: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return [one.result() for one in [pool.submit(call) for _ in range(count)]]


def test_defect_6_ignored_failures__of_every_method__not_of_some(redis_down: dict[str, Any]) -> None:
    """There: ttl, touch, expire, sadd, hset, zadd, iter_keys … raised all the same. All: test_failure_policy.py."""
    redis_down["default"]["OPTIONS"] = {"ON_DOWN": "ignore"}
    assert [cache.ttl("k"), cache.touch("k"), cache.persist("k")] == [0, False, False]
    assert [cache.sadd("k", 1), cache.hset("k", "f", 1), cache.zadd("k", {"m": 1})] == [0, 0, 0]
    assert list(cache.iter_keys("*")) == []


def test_defect_7_clear__keys_of_others_in_the_database__are_left_alone(own_prefix: str) -> None:
    """There: FLUSHDB, which took another alias' keys and a broker's queue along."""
    others = [f"{own_prefix}x:1:a", "celery-like-list:" + own_prefix]
    connections.client().set(others[0], "theirs")
    connections.client().rpush(others[1], "a message")
    cache.set_many({f"k{n}": n for n in range(2500)})
    cache.set("other version", 1, version=7)
    cache.clear()
    assert list(connections.client().scan_iter(match=f"{own_prefix}:*")) == []
    assert connections.client().exists(*others) == 2
    connections.client().unlink(*others)


@pytest.mark.parametrize("data", [b"{not json", b"\xff\xfe", b"\xc0{", b"", b"\x80\x04K\x01."])
async def test_defect_8_get__corrupt_or_foreign_entry__is_a_counted_miss(data: bytes) -> None:
    """There: ValueError to whoever happens to read it."""
    connections.client().set(caches["default"].make_key("bad"), data)
    cache.set("good", {"a": [1]})
    before = stats.counts("default").events().get("corrupt", 0)
    assert cache.get("bad", "default") == "default"
    assert await cache.aget("bad", "default") == "default"
    assert cache.get_many(["bad", "good"]) == {"good": {"a": [1]}}
    assert stats.counts("default").events()["corrupt"] == before + 3


def test_defect_9_set__value_that_json_would_change__is_refused_or_kept(own_prefix: str) -> None:
    """There: a tuple became a list, {1: 2} became {"1": 2}, datetime and Decimal became text without a word."""
    values = [(1, 2), {1: 2}, datetime(2026, 1, 2, tzinfo=UTC), Decimal("1.10"), {1, 2}, b"bytes"]
    typed = BrainRedisCache(
        connections.default_url(), {"KEY_PREFIX": own_prefix, "OPTIONS": {"SERIALIZER": "typed"}}
    )
    for value in values:
        typed.set("k", value)
        assert typed.get("k") == value
        assert type(typed.get("k")) is type(value)
    for value in values[2:]:
        with pytest.raises(TypeError):
            cache.set("k", value)


def test_defect_10_hash_and_lock__can_be_read__and_does_not_hold_for_ever() -> None:
    """There: hset without hget or hgetall; lock() without a timeout outlived its holder for ever."""
    cache.hset("h", "a", [1])
    cache.hset("h", mapping={"b": 2, "c": None})
    assert cache.hget("h", "a") == [1]
    assert cache.hget("h", "none") is None
    assert cache.hmget("h", ["b", "none", "a"]) == [2, None, [1]]
    assert cache.hgetall("h") == {"a": [1], "b": 2, "c": None}
    lock = cache.lock("name")
    with lock:
        held = connections.client().keys(f"{caches['default'].key_prefix}*lock*")
        lives_ms = [connections.client().pttl(key) for key in held]
        assert any(5_000 < life_ms <= 30_000 for life_ms in lives_ms)
        assert -1 not in lives_ms


def test_defect_11_set_with_a_failed_primary__life_is_not_multiplied(own_prefix: str) -> None:
    """There: each retry on another server made the TTL 1000 times longer. Here nothing is sent twice."""
    gone = f"redis://127.0.0.1:{servers.free_port()}/0"
    made = BrainRedisCache(f"{gone},{connections.default_url()}", {"KEY_PREFIX": own_prefix, "OPTIONS": {}})
    with pytest.raises(redis.ConnectionError):
        made.set("k", 1, 10)
    assert cache.get("k") is None
    cache.set("k", 1, 10, xx=True)  # HerdClient there forgot the xx
    assert cache.get("k") is None


def test_defect_11_delete_pattern__thousands_of_keys__are_unlinked_in_chunks() -> None:
    """There: SCAN in steps of 10, and one pipeline with a DEL for each of the keys."""
    cache.set_many({f"user:{n}": n for n in range(2500)})
    cache.set("other", 3)
    before = connections.client().info("commandstats")
    assert cache.delete_pattern("user:*") == 2500
    after = connections.client().info("commandstats")
    assert _calls(after, "del") == _calls(before, "del")
    assert _calls(after, "flushdb") == _calls(before, "flushdb")
    assert _calls(after, "keys") == _calls(before, "keys")
    assert 3 <= _calls(after, "unlink") - _calls(before, "unlink") <= 8
    assert cache.get("other") == 3


# --- django-redis' API ---------------------------------------------------------------------------------------------------


async def test_aincr__missing_key_and_no_integer__raise_value_error() -> None:
    with pytest.raises(ValueError, match="not found"):
        await cache.aincr("absent")
    await cache.aset("half", 1.5)
    with pytest.raises(ValueError, match="no integer"):
        await cache.aincr("half")


async def test_incr__ignore_key_check__begins_at_nothing() -> None:
    assert cache.incr("fresh", 3, ignore_key_check=True) == 3
    assert await cache.aincr("fresh", 4, ignore_key_check=True) == 7


def test_sets__every_method__as_in_django_redis() -> None:
    assert cache.sadd("{s}a", 1, "x", 2.5) == 3
    cache.sadd("{s}b", "x", "y")
    assert cache.scard("{s}a") == 3
    assert cache.sdiff("{s}a", "{s}b") == {1, 2.5}
    assert cache.sinter("{s}a", "{s}b") == {"x"}
    assert cache.sunion("{s}a", "{s}b") == {1, 2.5, "x", "y"}
    assert [cache.sdiffstore("{s}d", "{s}a", "{s}b"), cache.smembers("{s}d")] == [2, {1, 2.5}]
    assert [cache.sinterstore("{s}d", "{s}a", "{s}b"), cache.smembers("{s}d")] == [1, {"x"}]
    assert [cache.sunionstore("{s}d", "{s}a", "{s}b"), cache.scard("{s}d")] == [4, 4]
    assert cache.sismember("{s}a", "x") is True
    assert cache.smismember("{s}a", "x", "nobody") == [True, False]
    assert cache.smove("{s}a", "{s}b", 1) is True
    assert cache.spop("{s}d", 2) <= {1, 2.5, "x", "y"}
    assert cache.spop("{s}d") in {1, 2.5, "x", "y"}
    assert isinstance(cache.srandmember("{s}b"), int | str)
    assert set(cache.srandmember("{s}b", 3)) == {"x", "y", 1}
    assert cache.srem("{s}b", "y", "nobody") == 1
    assert cache.sscan("{s}b") == {"x", 1}
    cache.sadd("{s}many", *range(500), "find me")
    assert set(cache.sscan_iter("{s}many", count=50)) == {*range(500), "find me"}
    assert set(cache.sscan_iter("{s}many", match="find*")) == {"find me"}


def test_sorted_sets__every_method__as_in_django_redis() -> None:
    assert cache.zadd("z", {"a": 1, "b": 2.5, 3: 3}) == 3
    assert cache.zadd("z", {"a": 5}, nx=True) == 0
    assert cache.zadd("z", {"a": 4}, incr=True) == 5.0
    assert cache.zadd("z", {"nobody": 1}, xx=True, incr=True) is None
    assert cache.zcard("z") == 3
    assert cache.zcount("z", 2, "+inf") == 3
    assert cache.zrange("z", 0, -1, withscores=True) == [("b", 2.5), (3, 3.0), ("a", 5.0)]
    assert cache.zrange("z", 0, 0, desc=True) == cache.zrevrange("z", 0, 0) == ["a"]
    assert cache.zrangebyscore("z", 0, 10, start=1, num=1, withscores=True, score_cast_func=int) == [(3, 3)]
    assert cache.zrevrangebyscore("z", 10, 3) == ["a", 3]
    assert [cache.zrank("z", "b"), cache.zrevrank("z", "b"), cache.zrank("z", "nobody")] == [0, 2, None]
    assert cache.zrank("z", 3, withscore=True) == [1, 3.0]
    assert [cache.zscore("z", "a"), cache.zscore("z", "nobody")] == [5.0, None]
    assert cache.zincrby("z", -4.5, "a") == 0.5
    assert cache.zpopmin("z") == ("a", 0.5)
    assert cache.zpopmax("z", 5) == [(3, 3.0), ("b", 2.5)]
    assert [cache.zpopmin("z"), cache.zpopmin("z", 2)] == [None, []]
    cache.zadd("z", {"a": 1, "b": 2})
    assert [cache.zrem("z", "a"), cache.zremrangebyscore("z", 0, 5)] == [1, 1]
    for wrong in ({"mapping": {}}, {"mapping": {"a": 1}, "nx": True, "xx": True}):
        with pytest.raises(redis.DataError):
            cache.zadd("z", **wrong)


def test_hashes_and_lists__every_method__keep_types() -> None:
    assert cache.hset("h", "a", {"deep": [1]}) == 1
    assert cache.hincrby("h", "n", 5) == 5
    assert sorted(cache.hkeys("h")) == ["a", "n"]
    assert sorted(map(str, cache.hvals("h"))) == ["5", "{'deep': [1]}"]
    assert [cache.hlen("h"), cache.hexists("h", "a"), cache.hdel("h", "a", "none")] == [2, True, 1]
    assert cache.rpush("l", 1, "two", [3]) == 3
    assert cache.lpush("l", None) == 4
    assert cache.lrange("l", 0, -1) == [None, 1, "two", [3]]
    assert [cache.lindex("l", 1), cache.llen("l"), cache.lrem("l", 0, "two")] == [1, 4, 1]
    assert [cache.rpop("l"), cache.lpop("l", 5), cache.lpop("l")] == [[3], [None, 1], None]
    cache.rpush("l", 1, 2, 3)
    assert [cache.ltrim("l", 0, 1), cache.lrange("l", 0, -1)] == [True, [1, 2]]


async def test_structures__on_the_event_loop__are_the_same_methods() -> None:
    assert await cache.asadd("s", 1, "x") == 2
    assert await cache.asmembers("s") == cache.smembers("s") == {1, "x"}
    await cache.ahset("h", mapping={"a": 1})
    assert await cache.ahgetall("h") == {"a": 1}
    await cache.azadd("z", {"m": 1})
    assert await cache.azrange("z", 0, -1, withscores=True) == [("m", 1.0)]
    assert {member async for member in cache.asscan_iter("s")} == {1, "x"}
    assert await cache.asscan("s") == {1, "x"}


def test_structures__of_signed_values__are_compared_and_verified(own_prefix: str) -> None:
    options = {"SERIALIZER": "typed", "SIGN": True, "KEYS": ("k" * 32,), "COMPRESSOR": "zstd"}
    signed = BrainRedisCache(connections.default_url(), {"KEY_PREFIX": own_prefix, "OPTIONS": options})
    big = "x" * 5000
    signed.sadd("{s}a", (1, 2), big)
    signed.sadd("{s}b", (1, 2))
    assert signed.sinter("{s}a", "{s}b") == {(1, 2)}
    assert signed.sismember("{s}a", big)
    connections.client().sadd(signed.make_key("{s}a"), b'\xc0"forged"')
    assert signed.smembers("{s}a") == {(1, 2), big}
    with pytest.raises(ValueError, match="signed"):
        list(signed.sscan_iter("{s}a", match="x*"))


def test_keys_of_structures__ttl_expire_has_key__work_as_on_values() -> None:
    cache.sadd("s", 1)
    assert cache.has_key("s") is True
    assert "s" in cache
    assert cache.ttl("s") is None
    assert cache.expire("s", 60) is True
    assert 30 <= cache.ttl("s") <= 60
    assert cache.persist("s") is True
    assert cache.get("s", "no value") == "no value"
    assert cache.touch("s", 0) is True
    assert cache.has_key("s") is False


async def test_expiries__in_every_unit_and_way__are_the_same_moment() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=60)
    ways = [
        lambda: cache.expire_at("k", soon),
        lambda: cache.expire_at("k", soon.timestamp()),
        lambda: cache.pexpire_at("k", soon),
        lambda: cache.pexpire_at("k", int(soon.timestamp() * 1000)),
        lambda: cache.pexpire("k", 60_000),
        lambda: cache.pexpire("k", timedelta(seconds=60)),
    ]
    for way in ways:
        cache.set("k", [1], None)
        assert cache.pttl("k") is None
        assert way() is True
        assert 20_000 < cache.pttl("k") <= 60_001
        assert 20_000 < await cache.apttl("k") <= 60_001
    assert cache.expire_at("k", datetime.now(UTC) - timedelta(seconds=1)) is True
    assert cache.get("k") is None
    assert cache.pttl("k") == 0
    assert await cache.aexpire_at("k", soon) is False
    assert await cache.apexpire_at("k", soon) is False
    assert await cache.apexpire("k", 5) is False


def test_incr_version__value_with_tags_and_life__keeps_both() -> None:
    cache.set("k", [1], 60, tags=("t",))
    assert cache.incr_version("k") == 2
    assert cache.get("k") is None
    assert cache.get("k", version=2) == [1]
    assert 30 <= cache.ttl("k", version=2) <= 60
    cache.invalidate_tags("t")
    assert cache.get("k", version=2) is None
    with pytest.raises(ValueError, match="not found"):
        cache.incr_version("k", version=2)


def test_get_redis_connection__of_our_alias__is_redis_pys_client() -> None:
    raw = get_redis_connection("default")
    cache.set("k", {"a": 1})
    assert raw.get(cache.make_key("k")) == b'\xc0{"a":1}'
    assert cache.client.get("k") == {"a": 1}
    cache.client.set("k", 2)
    assert cache.get("k") == 2
    cache.client.sadd("s", "x")
    assert cache.smembers("s") == {"x"}


def test_structure_method__with_a_pipeline_as_client__queues_there() -> None:
    with cache.client.get_client().pipeline() as pipeline:
        with pytest.raises(TypeError):  # django-redis wants a number, and a pipeline has none yet
            cache.sadd("s", 1, client=pipeline)
        pipeline.execute()
    assert cache.smembers("s") == {1}


def test_options__of_django_redis__are_understood(own_prefix: str, valkey: str) -> None:
    options = {
        "CLIENT_CLASS": "django_redis.client.DefaultClient",
        "CONNECTION_POOL_KWARGS": {"max_connections": 3, "retry_on_timeout": True, "client_name": "named"},
        "SOCKET_TIMEOUT": 2,
        "SOCKET_CONNECT_TIMEOUT": 1.5,
    }
    made = BrainRedisCache(valkey, {"KEY_PREFIX": own_prefix, "OPTIONS": options})
    made.set("k", 1)
    connection = made.servers.link._idle[-1][1]
    assert (connection.socket_timeout, connection.socket_connect_timeout) == (2, 1.5)
    assert connection.client_name == "named"
    assert made.servers.link._limit == 3
    assert made.client.get_client().connection_pool.max_connections == 3


def test_password__of_the_options__opens_every_door(own_prefix: str) -> None:
    port = servers.free_port()
    with servers.valkey(port=port, appendonly=False) as url, redis.Redis.from_url(url) as client:
        client.config_set("requirepass", "s3 cret/&")
        made = BrainRedisCache(url, {"KEY_PREFIX": own_prefix, "OPTIONS": {"PASSWORD": "s3 cret/&"}})
        made.set("k", 1)
        assert made.get("k") == 1
        assert asyncio.run(made.aget("k")) == 1
        assert made.client.get_client().ping()
        assert connections.client(made.url).ping()
        with pytest.raises(redis.AuthenticationError):
            BrainRedisCache(url, {"KEY_PREFIX": own_prefix, "OPTIONS": {}}).get("k")
        connections.client(made.url).connection_pool.disconnect()


def test_lock__asked_for_as_in_django_redis__is_ours() -> None:
    held = cache.lock("name", timeout=5, blocking_timeout=0.1, sleep=0.01, thread_local=False)
    assert held.ttl_s == 5
    with held:
        second = cache.lock("name", blocking=False)
        with pytest.raises(LockTimeout):
            second.acquire()
        with cache.lock("name", version=2, blocking=False):
            pass  # another version is another lock
    with cache.lock("name", ttl_s=3, wait_s=0):
        pass


def test_close__at_the_end_of_a_request__keeps_the_connections_of_the_process() -> None:
    cache.set("k", 1)
    made = len(caches["default"].servers.link._idle)
    cache.close()
    assert len(caches["default"].servers.link._idle) == made


def test_glob_escape__special_characters__match_only_themselves(prefix: str) -> None:
    connections.client().set(f"{prefix}a*[b]?", 1)
    connections.client().set(f"{prefix}aXXbX", 1)
    found = list(connections.client().scan_iter(match=prefix + connections.glob_escape("a*[b]?")))
    assert found == [f"{prefix}a*[b]?".encode()]
