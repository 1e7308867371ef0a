from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from django.conf import LazySettings

from cache_app import shared
from cache_app.connections import default_url
from cache_app.redis_store import RedisStore
from cache_app.tiered import TieredCache
from tests import servers

from . import tracked
from .tracked import Proxy, until

PING_S = 2.0  # the line of a process that a busy machine stops for twice as long is lost
Make = Callable[..., TieredCache]


@pytest.fixture
def make(own_prefix: str) -> Iterator[Make]:
    """A cache as another process would have it: with a memory and a tracker of its own, which is live already."""
    made: list[TieredCache] = []

    def one(url: str | None = None, **options: Any) -> TieredCache:
        # The timeout tells them apart: what is equal shares its store.
        params = {
            "KEY_PREFIX": own_prefix,
            "TIMEOUT": 300 + len(made),
            "OPTIONS": {"TRACKER_PING_S": PING_S} | options,
        }
        cache = TieredCache(url or default_url(), params)
        made.append(cache)
        cache.get("wake up")
        until(lambda: cache.store.tracker.is_live)
        return cache

    yield one
    shared.close_all()


@pytest.fixture(params=[True, False], ids=["copies", "references"])
def cache(request: pytest.FixtureRequest, make: Make) -> TieredCache:
    return make(COPY=request.param)


@pytest.fixture
def other(make: Make, cache: TieredCache) -> TieredCache:
    return make()


@pytest.fixture
def client() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(default_url()) as made:
        yield made


class Near:
    """How many reads memory has answered since it was last asked."""

    def __init__(self, cache: TieredCache) -> None:
        self._cache, self._seen = cache, 0
        self()

    def __call__(self) -> int:
        now = self._cache.counts.events().get("hits_l1", 0)
        self._seen, before = now, self._seen
        return now - before


def settle(cache: TieredCache, *keys: str) -> None:
    """Until memory holds the keys: what the process wrote itself has been told by then."""
    for key in keys:
        until(
            lambda key=key: cache.get(key) is not None and cache.store.near(cache.full_key(key)) is not None
        )  # type: ignore[misc]
    time.sleep(0.02)
    for key in keys:
        cache.get(key)


# --- hits in memory ------------------------------------------------------------------------------------------------------
async def test_reads__of_what_memory_holds__do_not_ask_redis(cache: TieredCache, monkeypatch: Any) -> None:
    cache.set("a", {"x": 1})
    cache.set("b", [2], tags=["red", "blue"])
    cache.namespace("users").set("1", [3])
    settle(cache, "a", "b", "users:1")
    near = Near(cache)
    monkeypatch.setattr(RedisStore, "link", None)
    monkeypatch.setattr(RedisStore, "alink", None)
    assert (cache.get("a"), await cache.aget("a"), cache.has_key("a"), await cache.ahas_key("a")) == (
        {"x": 1},
        {"x": 1},
        True,
        True,
    )
    assert cache.get_many(["a", "b"]) == await cache.aget_many(["a", "b"]) == {"a": {"x": 1}, "b": [2]}
    assert near() == 6
    for found in (
        cache.read(cache.full_key("b"), ["red"]),
        await cache.aread(cache.full_key("b"), ["red"]),
    ):
        assert (found.value, found.tier, found.is_found) == ([2], "l1", True)
        assert found.meta is not None
        assert found.versions == {"red": found.meta.tags["red"]}
    assert cache.namespace("users").get("1") == [3]


def test_get_many__some_in_memory__asks_redis_for_the_others(cache: TieredCache, monkeypatch: Any) -> None:
    cache.set_many({"a": [1], "b": [2]})
    settle(cache, "a")
    asked: list[str] = []
    real = RedisStore.get_many
    monkeypatch.setattr(RedisStore, "get_many", lambda self, keys: asked.extend(keys) or real(self, keys))
    assert cache.get_many(["a", "b", "none"]) == {"a": [1], "b": [2]}
    assert asked == [cache.full_key("b"), cache.full_key("none")]


def test_get__counters_and_nothing__are_never_from_memory(cache: TieredCache) -> None:
    cache.set("n", 5)
    near = Near(cache)
    for _ in range(3):
        assert (cache.get("n"), cache.get("none", "nothing")) == (5, "nothing")
    cache.incr("n")
    assert cache.get("n") == 6
    assert near() == 0


def test_get__life_ends_while_it_is_in_memory__is_a_miss_at_once(cache: TieredCache) -> None:
    for life_s in (0.3, 2.0, 10.0):  # on a busy machine it may be over before memory has it
        cache.set("a", [1], life_s)
        deadline = time.monotonic() + life_s
        near = Near(cache)
        while not near() and time.monotonic() < deadline:
            cache.get("a")
            time.sleep(0.01)
        if time.monotonic() < deadline:
            break
    time.sleep(max(0.0, deadline - time.monotonic()) + 0.01)
    assert cache.get("a") is None


def test_get__longer_in_memory_than_the_ceiling__asks_redis_again(make: Make) -> None:
    cache = make(L1_TTL_S=0.3)
    cache.set("a", [1])
    for _ in range(20):  # a busy machine may stop this process for as long as memory keeps it
        until(lambda: cache.get("a") is not None and cache.store.near(cache.full_key("a")) is not None)
        near = Near(cache)
        time.sleep(0.32)
        assert cache.get("a") == [1]
        assert near() == 0
        assert cache.get("a") == [1]
        if near() == 1:
            break
    else:
        pytest.fail("memory does not keep it again")


# --- what changes elsewhere ----------------------------------------------------------------------------------------------
def test_write__in_another_process__is_seen_at_once_and_comes_to_memory_again(
    cache: TieredCache, other: TieredCache
) -> None:
    for number in range(20):
        other.set("a", [number])
        until(lambda number=number: cache.get("a") == [number])  # type: ignore[misc]
    settle(cache, "a")
    assert Near(cache)() == 0
    assert cache.get("a") == [19]
    other.delete("a")
    until(lambda: cache.get("a") is None)


def test_change__by_anything_that_speaks_to_redis__is_seen(cache: TieredCache, client: redis.Redis) -> None:
    full = cache.full_key("a")
    cache.set("a", [1])
    settle(cache, "a")
    client.set(full, b"[2]")
    until(lambda: cache.get("a") == [2])
    cache.set("a", [3])
    settle(cache, "a")
    client.pexpire(full, 20)
    until(lambda: cache.get("a") is None)


@pytest.mark.parametrize("how", ["tags", "namespace", "pattern", "clear"])
def test_invalidation__in_another_process__ends_what_memory_holds(
    cache: TieredCache, other: TieredCache, how: str
) -> None:
    cache.set("a", [1], tags=["red"])
    cache.namespace("users").set("1", [2])
    settle(cache, "a", "users:1")
    end: dict[str, Callable[[], Any]] = {
        "tags": lambda: other.invalidate_tags("red", "namespace:users"),
        "namespace": lambda: (other.namespace("users").invalidate(), other.invalidate_tags("red")),
        "pattern": lambda: (other.delete_pattern("a"), other.delete_pattern("users:*")),
        "clear": other.clear,
    }
    end[how]()
    until(lambda: cache.get("a") is None and cache.namespace("users").get("1") is None)
    assert not cache.read(cache.full_key("a"), ["red"]).is_found
    assert cache.get_many(["a"]) == {}


def test_write__in_this_process__is_what_the_next_read_gives(cache: TieredCache) -> None:
    for number in range(200):
        cache.set("a", [number], tags=["red"])
        assert cache.get("a") == [number]
        if number % 10 == 9:
            cache.invalidate_tags("red")
            assert cache.get("a") is None
        if number % 10 == 5:
            cache.delete("a")
            assert cache.get("a") is None


async def test_write__in_this_loop__is_what_the_next_read_gives(cache: TieredCache) -> None:
    for number in range(100):
        await cache.aset("a", [number], tags=["red"])
        assert await cache.aget("a") == [number]
        if number % 10 == 9:
            await cache.ainvalidate_tags("red")
            assert await cache.aget("a") is None


def test_flush__of_the_whole_server__empties_memory_and_keeps_the_tracker(make: Make) -> None:
    with tracked.server("valkey") as url, redis.Redis.from_url(url) as client:
        cache = make(url)
        cache.set("a", [1])
        settle(cache, "a")
        client.flushall()
        until(lambda: cache.get("a") is None)
        assert cache.store.tracker.is_live
        shared.close_all()


def test_key_function__keys_do_not_begin_with_the_prefix__changes_are_seen(
    own_prefix: str, client: redis.Redis
) -> None:
    params = {
        "KEY_PREFIX": own_prefix,
        "KEY_FUNCTION": lambda key, prefix, version: f"{key}/{version}/{prefix}",
    }
    cache = TieredCache(default_url(), params)
    cache.get("a")
    until(lambda: cache.store.tracker.is_live)
    cache.set("a", [1])
    settle(cache, "a")
    client.set(f"a/1/{own_prefix}", b"[2]")
    until(lambda: cache.get("a") == [2])
    cache.delete("a")
    shared.close_all()


def test_touch__set_between_its_read_and_its_write__leaves_the_new_value(
    cache: TieredCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.set("a", ["old"], 60)
    replaced = cache._replaced

    def late(*arguments: Any) -> bool:
        cache.set("a", ["new"], 70)
        return replaced(*arguments)

    monkeypatch.setattr(cache, "_replaced", late)
    assert cache.touch("a", 50) is True
    assert cache.get("a") == ["new"]
    assert 50 < cache.ttl("a") <= 70


# --- sliding -------------------------------------------------------------------------------------------------------------
def test_sliding__read_from_memory__lives_on_and_redis_is_touched_once_in_a_quarter(
    cache: TieredCache, client: redis.Redis, monkeypatch: Any
) -> None:
    touches: list[str] = []
    real = RedisStore.expire
    monkeypatch.setattr(RedisStore, "expire", lambda self, key, s: touches.append(key) or real(self, key, s))
    full = cache.full_key("a")
    cache.set("a", [1], 400, sliding=True)
    settle(cache, "a")
    assert len(touches) == 1
    near = Near(cache)
    assert [cache.get("a") for _ in range(20)] == [[1]] * 20
    assert (len(touches), near()) == (1, 20)
    client.expire(full, 100)
    cache.store._touched[full] -= 101.0  # a quarter of its life is over
    assert cache.get("a") == [1]
    assert len(touches) == 2
    assert 300 < client.ttl(full) <= 400


# --- bounds --------------------------------------------------------------------------------------------------------------
def test_memory__more_than_it_may_hold__stays_within_its_bounds(make: Make) -> None:
    cache = make(MAX_ENTRIES=50, MAX_BYTES=20_000)
    cache.set_many({f"k{number}": ["x" * 100] for number in range(300)})
    time.sleep(0.05)
    for number in range(300):
        assert cache.get(f"k{number}") == ["x" * 100]
    held = [number for number in range(300) if cache.store.near(cache.full_key(f"k{number}")) is not None]
    assert 10 <= len(held) <= 50


# --- while the server cannot tell ----------------------------------------------------------------------------------------
def test_tracker__line_goes_silent__memory_is_not_used_after_twice_the_ping(
    make: Make, monkeypatch: Any
) -> None:
    with tracked.server("valkey") as url, Proxy(url) as proxy:
        with monkeypatch.context() as patched:
            pool = redis.ConnectionPool.from_url(proxy.url, socket_timeout=60, socket_connect_timeout=60)
            patched.setattr(RedisStore, "pools", lambda self: {"proxy": pool})
            cache = make(url, TRACKER_PING_S=0.3)
        cache.set("a", ["old"])
        settle(cache, "a")
        proxy.is_silent.set()
        with redis.Redis.from_url(url) as elsewhere:
            elsewhere.set(cache.full_key("a"), b'["new"]')
        until(lambda: cache.get("a") == ["new"])
        until(lambda: cache.counts.events().get("tracker_losses", 0) >= 1)
        for _ in range(3):  # not filled again either
            assert cache.store.near(cache.full_key("a")) is None
            cache.get("a")
        proxy.is_silent.clear()
        until(lambda: cache.store.tracker.is_live)
        cache.set("a", ["newer"])
        settle(cache, "a")
        assert cache.store.near(cache.full_key("a")) is not None
        shared.close_all()


@pytest.mark.parametrize("make_of", tracked.MAKES)
def test_server__killed_and_back_empty__memory_gives_nothing_of_before(make: Make, make_of: str) -> None:
    port = servers.free_port()
    with tracked.server(make_of, port) as url:
        cache = make(url, ON_DOWN="ignore", BREAKER_OPEN_S=0.1)
        cache.set("a", [1], tags=["red"])
        settle(cache, "a")
        near = Near(cache)
    until(lambda: not cache.store.tracker.is_live)
    assert (cache.get("a"), near()) == (None, 0)
    with tracked.server(make_of, port):
        until(lambda: cache.store.tracker.is_live)
        assert cache.get("a") is None
        until(lambda: cache.set("a", [2], tags=["red"]))
        settle(cache, "a")
        assert (cache.get("a"), near() > 0) == ([2], True)
        shared.close_all()


def test_server__gone_and_policy_is_stale__last_known_value_is_given(make: Make) -> None:
    with tracked.server("valkey") as url:
        cache = make(url, ON_DOWN="stale")
        cache.set("a", [1])
        settle(cache, "a")
    until(lambda: not cache.store.tracker.is_live)
    assert cache.get("a") == [1]
    assert cache.counts.events()["stale"] == 1
    shared.close_all()


def test_server__gone_and_policy_is_raise__raises(make: Make) -> None:
    with tracked.server("valkey") as url:
        cache = make(url)
        cache.set("a", [1])
        settle(cache, "a")
    until(lambda: not cache.store.tracker.is_live)
    with pytest.raises(redis.ConnectionError):
        cache.get("a")
    shared.close_all()


# --- one per process -----------------------------------------------------------------------------------------------------
def test_instances__of_one_alias__share_memory_and_tracker(settings: LazySettings, own_prefix: str) -> None:
    params: dict[str, Any] = {"KEY_PREFIX": own_prefix, "OPTIONS": {}}
    first, second = TieredCache(default_url(), dict(params)), TieredCache(default_url(), dict(params))
    assert first.store is second.store
    shared.close_all()
