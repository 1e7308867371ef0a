"""Every method of the Redis cache while its server is down: one table says what each of them answers."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from django_redis.cache import RedisCache

from cache_app import connections, shared, stats, structures
from cache_app.redis import BrainRedisCache
from tests import servers

from .scripted_server import Behave, scripted

WHEN = datetime(2100, 1, 1, tzinfo=UTC)
Call = tuple[tuple[Any, ...], dict[str, Any], Any]


def call(*arguments: Any, gives: Any, **options: Any) -> Call:
    return arguments, options, gives


# method → a call of it, and what it gives while the server is down and that is ignored.
TABLE: dict[str, Call] = {
    "get": call("k", "default", gives="default"),
    "set": call("k", 1, gives=False),
    "add": call("k", 1, gives=False),
    "delete": call("k", gives=False),
    "has_key": call("k", gives=False),
    "touch": call("k", gives=False),
    "expire": call("k", 5, gives=False),
    "persist": call("k", gives=False),
    "expire_at": call("k", WHEN, gives=False),
    "pexpire": call("k", 5000, gives=False),
    "pexpire_at": call("k", WHEN, gives=False),
    "ttl": call("k", gives=0),
    "ttl_s": call("k", gives=0.0),
    "pttl": call("k", gives=0),
    "incr": call("k", gives=0),
    "decr": call("k", gives=0),
    "incr_version": call("k", gives=1),
    "decr_version": call("k", gives=1),
    "get_or_set": call("k", lambda: 5, gives=5),
    "get_many": call(["k"], gives={}),
    "set_many": call({"k": 1}, gives=["k"]),
    "delete_many": call(["k"], gives=0),
    "clear": call(gives=False),
    "delete_pattern": call("*", gives=0),
    "keys": call("*", gives=[]),
    "iter_keys": call("*", gives=[]),
    "invalidate_tags": call("t", gives=False),
    "sadd": call("k", 1, gives=0),
    "scard": call("k", gives=0),
    "sdiff": call("k", "l", gives=set()),
    "sdiffstore": call("d", "k", gives=0),
    "sinter": call("k", "l", gives=set()),
    "sinterstore": call("d", "k", gives=0),
    "sismember": call("k", 1, gives=False),
    "smismember": call("k", 1, 2, gives=[False, False]),
    "smembers": call("k", gives=set()),
    "smove": call("k", "l", 1, gives=False),
    "spop": call("k", gives=None),
    "srandmember": call("k", 2, gives=[]),
    "srem": call("k", 1, gives=0),
    "sscan": call("k", gives=set()),
    "sscan_iter": call("k", gives=[]),
    "sunion": call("k", gives=set()),
    "sunionstore": call("d", "k", gives=0),
    "hset": call("k", "f", 1, gives=0),
    "hdel": call("k", "f", gives=0),
    "hget": call("k", "f", gives=None),
    "hmget": call("k", ["f", "g"], gives=[None, None]),
    "hgetall": call("k", gives={}),
    "hvals": call("k", gives=[]),
    "hkeys": call("k", gives=[]),
    "hlen": call("k", gives=0),
    "hexists": call("k", "f", gives=False),
    "hincrby": call("k", "f", gives=0),
    "zadd": call("k", {"m": 1}, gives=0),
    "zcard": call("k", gives=0),
    "zcount": call("k", 0, 1, gives=0),
    "zincrby": call("k", 1, "m", gives=None),
    "zpopmax": call("k", gives=None),
    "zpopmin": call("k", 2, gives=[]),
    "zrange": call("k", 0, -1, gives=[]),
    "zrevrange": call("k", 0, -1, gives=[]),
    "zrangebyscore": call("k", 0, 1, gives=[]),
    "zrevrangebyscore": call("k", 1, 0, gives=[]),
    "zrank": call("k", "m", gives=None),
    "zrevrank": call("k", "m", gives=None),
    "zrem": call("k", "m", gives=0),
    "zremrangebyscore": call("k", 0, 1, gives=0),
    "zscore": call("k", "m", gives=None),
    "lpush": call("k", 1, gives=0),
    "rpush": call("k", 1, gives=0),
    "lpop": call("k", gives=None),
    "rpop": call("k", 2, gives=[]),
    "llen": call("k", gives=0),
    "lrange": call("k", 0, -1, gives=[]),
    "lindex": call("k", 0, gives=None),
    "lrem": call("k", 0, 1, gives=0),
    "ltrim": call("k", 0, 1, gives=False),
}
# These talk to no server.
QUIET = {
    *(
        "everything",
        "full_key",
        "make_key",
        "validate_key",
        "make_and_validate_key",
        "tag_key",
        "own_key",
        "pattern",
    ),
    *("get_backend_timeout", "namespace", "lock", "close", "aclose", "pack_member", "unpack_members"),
}
# These tell whoever calls them of the failure, whatever the policy: loading decides by itself.
TELLING = {"read", "aread", "write", "awrite"}


def public(kind: type) -> set[str]:
    named = {name for name in dir(kind) if not name.startswith("_")}
    return {
        name for name in named if callable(getattr(kind, name)) and not inspect.isclass(getattr(kind, name))
    }


def test_table__every_public_method__is_in_it() -> None:
    twins = {f"a{name}" for name in TABLE}
    assert public(BrainRedisCache) - QUIET - TELLING == set(TABLE) | twins
    assert public(RedisCache) <= public(BrainRedisCache)
    assert set(structures.METHODS) <= set(TABLE)


@pytest.fixture(scope="module")
def nowhere() -> str:
    return f"redis://127.0.0.1:{servers.free_port()}/0"


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as started:
        yield started


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    shared.close_all()


def made(url: str, policy: str, **options: Any) -> BrainRedisCache:
    settings = {"ON_DOWN": policy, "BREAKER_FAILURES": 2, "BREAKER_OPEN_S": 60.0} | options
    return BrainRedisCache(url, {"KEY_PREFIX": "policy", "OPTIONS": settings})


def ask(cache: BrainRedisCache, half: asyncio.Runner | None, name: str, one: Call | None = None) -> Any:
    arguments, options, _ = one or TABLE[name]
    if half is None:
        found = getattr(cache, name)(*arguments, **options)
        return list(found) if inspect.isgenerator(found) else found
    coming = getattr(cache, f"a{name}")(*arguments, **options)
    return half.run(_all(coming) if inspect.isasyncgen(coming) else coming)


async def _all(found: Any) -> list[Any]:
    return [one async for one in found]


@pytest.mark.parametrize("name", TABLE)
def test_method__server_is_gone__is_ignored_or_raised_as_the_policy_says(
    nowhere: str, runner: asyncio.Runner, name: str
) -> None:
    neutral = TABLE[name][2]
    for half in (None, runner):
        for policy, failures in (
            ("ignore", 1000),
            ("stale", 2),
        ):  # dialling each time, and with an open breaker
            cache = made(nowhere, policy, BREAKER_FAILURES=failures)
            before = stats.counts(cache.alias).events().get("store_errors", 0)
            for _ in range(3):
                found = ask(cache, half, name)
                assert found == neutral
                assert type(found) is type(neutral)
            assert stats.counts(cache.alias).events()["store_errors"] >= before + 3
        if name == "get_or_set":
            continue  # the default's own value, whatever happens to the cache
        for failures in (1000, 2):
            with pytest.raises(redis.ConnectionError):
                ask(made(nowhere, "raise", BREAKER_FAILURES=failures), half, name)


REFUSALS: dict[str, Behave] = {
    "loading": lambda command: b"-LOADING Redis is loading the dataset in memory\r\n",
    "cluster down": lambda command: b"-CLUSTERDOWN The cluster is down\r\n",
    "out of memory": lambda command: b"-OOM command not allowed\r\n",
    "no disk": lambda command: b"-MISCONF Errors writing to the AOF file\r\n",
    "read only": lambda command: b"-READONLY You can't write against a read only replica.\r\n",
    "no login": lambda command: b"-NOAUTH Authentication required.\r\n",
    "hangs up": lambda command: b"",
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_every_method__server_refuses_and_that_is_ignored__none_raises(
    half: asyncio.Runner | None, refusal: str
) -> None:
    with scripted(REFUSALS[refusal]) as server:
        cache = made(server.url, "ignore", BREAKER_FAILURES=1000)
        for name, (_, _, neutral) in TABLE.items():
            assert ask(cache, half, name) == neutral, name


def test_every_method__frozen_server__none_raises_and_only_the_first_ones_wait(
    half: asyncio.Runner | None,
) -> None:
    with servers.valkey(port=servers.free_port(), appendonly=False) as url:
        with redis.Redis.from_url(url) as client:
            pid = client.info("server")["process_id"]
        cache = made(url, "ignore", SOCKET_TIMEOUT=0.1)
        ask(cache, half, "set")
        os.kill(pid, signal.SIGSTOP)
        try:
            for name, (_, _, neutral) in TABLE.items():
                assert ask(cache, half, name) == neutral, name
        finally:
            os.kill(pid, signal.SIGCONT)


def test_method__wrong_use__raises_whatever_the_policy(half: asyncio.Runner | None, own_prefix: str) -> None:
    cache = BrainRedisCache(
        connections.default_url(), {"KEY_PREFIX": own_prefix, "OPTIONS": {"ON_DOWN": "ignore"}}
    )
    ask(cache, half, "set")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        ask(cache, half, "sadd")
    with pytest.raises(redis.DataError):
        ask(cache, half, "zadd", (("k", {}), {}, None))


def test_ignore__the_call_is_wrong_and_the_server_is_well__is_said(own_prefix: str) -> None:
    cache: Any = made(connections.default_url(), "ignore")
    cache.hset("h", "f", "text")
    with pytest.raises(redis.ResponseError, match="not an integer"):
        cache.hincrby("h", "f")
    cache.delete("h")


# --- stale ---------------------------------------------------------------------------------------------------------------


def test_stale__server_stops__reads_are_what_this_process_saw_last(half: asyncio.Runner | None) -> None:
    port = servers.free_port()
    with servers.valkey(port=port, appendonly=False) as url:
        cache = made(url, "stale")
        ask(cache, half, "set", (("a", [1]), {}, None))
        ask(cache, half, "set", (("tagged", [2]), {"tags": ("t",)}, None))
        ask(cache, half, "set", (("gone", [3]), {}, None))
        ask(cache, half, "delete", (("gone",), {}, None))
        ask(cache, half, "get", (("a",), {}, None))
        users: Any = cache.namespace("users")
        ask(users, half, "set", (("1", [4]), {}, None))
    assert ask(cache, half, "get", (("a",), {}, None)) == [1]
    assert ask(users, half, "get", (("1",), {}, None)) == [4]
    assert ask(users, half, "get", (("2", "nothing"), {}, None)) == "nothing"
    assert ask(cache, half, "get", (("tagged",), {}, None)) == [2]
    assert ask(cache, half, "get", (("gone", "nothing"), {}, None)) == "nothing"
    assert ask(cache, half, "get_many", ((["a", "gone", "tagged"],), {}, None)) == {"a": [1], "tagged": [2]}
    assert ask(cache, half, "has_key", (("a",), {}, None)) is True
    assert stats.counts(cache.alias).events()["stale"] >= 4


@pytest.mark.parametrize("policy", ["raise", "ignore"])
def test_stale__not_asked_for__nothing_is_kept(own_prefix: str, policy: str) -> None:
    cache = made(connections.default_url(), policy)
    cache.set("a", [1])
    assert cache.store.last_known(cache.full_key("a")) is None  # type: ignore[attr-defined]
    cache.delete("a")
