"""The customer's text, as it stands there but for the import line, on every kind of cache."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.exceptions import ImproperlyConfigured

from cache_app import CacheConfig, backends, cache_lock, cached, initialize_cache, shared


@pytest.fixture(autouse=True)
def default_again() -> Iterator[None]:
    yield
    backends.choose(None)
    shared.close_all()


@pytest.fixture(params=["redis", "tiered", "memory", "file"])
def config(request: pytest.FixtureRequest, tmp_path: Path, own_prefix: str) -> dict[str, Any]:
    kind = str(request.param)
    return {"backend": kind, "location": str(tmp_path / "cache") if kind == "file" else ""}


async def test_basic_operations__as_in_the_text(config: dict[str, Any]) -> None:
    cache = initialize_cache(CacheConfig(**config))

    await cache.set("user:123", {"name": "John"}, ttl=3600)
    user = await cache.get("user:123")

    assert user == {"name": "John"}
    assert 3500 < (await cache.ttl("user:123") or 0) <= 3600
    assert await cache.exists("user:123")
    assert await cache.get_many(["user:123", "user:124"]) == {"user:123": {"name": "John"}}
    assert await cache.delete("user:123")
    assert await cache.get("user:123", "gone") == "gone"


async def test_decorator__as_in_the_text__runs_once_and_keeps_the_result_there(
    config: dict[str, Any],
) -> None:
    cache = initialize_cache(CacheConfig(**config))
    runs = 0

    @cached(ttl=300)
    async def expensive_operation(data: str) -> dict[str, str]:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.01)
        result = {"data": data}
        return result

    found = await asyncio.gather(*(expensive_operation("x") for _ in range(20)))
    assert found == [{"data": "x"}] * 20
    assert runs == 1
    assert [key async for key in cache.backend.store.ascan("*expensive_operation*")]


async def test_cache_lock__as_in_the_text__lets_one_in_at_a_time(config: dict[str, Any]) -> None:
    initialize_cache(CacheConfig(**config))
    inside = most = 0

    async def critical() -> None:
        nonlocal inside, most
        async with cache_lock("critical_operation"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            inside -= 1

    await asyncio.gather(*(critical() for _ in range(5)))
    assert most == 1


def test_decorator__of_a_plain_function__works_the_same_way(config: dict[str, Any]) -> None:
    initialize_cache(CacheConfig(**config))
    runs = []

    @cached(ttl=300)
    def expensive_operation(data: int) -> int:
        runs.append(data)
        return data * 2

    assert [expensive_operation(2), expensive_operation(2)] == [4, 4]
    assert runs == [2]


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (CacheConfig(backend="memcached"), "'redis', 'tiered', 'memory', 'file'"),
        (CacheConfig(options={"COMPRESSER": "zstd"}), "Did you mean 'COMPRESSOR'"),
        (CacheConfig(options={"SERIALIZER": "pickle"}), "CacheConfig.options has pickle and no KEYS"),
        (CacheConfig(default_ttl=-1), "default_ttl=-1"),
        (CacheConfig(default_ttl="60"), "in seconds, or None"),  # type: ignore[arg-type]
        (CacheConfig(location="http://cache"), "begin it with one of redis://"),
        (CacheConfig(backend="tiered", location="cache:6379"), "is not a Redis URL"),
    ],
)
def test_initialize_cache__what_does_not_exist__is_said_with_what_does(
    config: CacheConfig, word: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=word):
        initialize_cache(config)


def test_initialize_cache__the_keys_of_an_alias__counts_as_the_alias(
    config: dict[str, Any], settings: LazySettings
) -> None:
    cache = initialize_cache(CacheConfig(**config, default_ttl=60))
    prefix = settings.CACHES["default"]["KEY_PREFIX"]  # also the name of what no alias keeps
    assert cache.backend.alias == ("default" if config["backend"] == "redis" else prefix)


async def test_default_ttl__a_part_of_a_second__is_not_cut_down_to_none() -> None:
    cache = initialize_cache(CacheConfig(backend="memory", default_ttl=0.5))
    found = []
    for _ in range(20):  # half a second may be over between the two, but not so often
        await cache.set("a", 1)
        found.append(await cache.get("a"))
    assert 1 in found
