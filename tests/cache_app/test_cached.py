from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
from typing import Any

import pytest
import redis
import structlog

from cache_app import cached, stats
from cache_app.codec import Uncacheable
from cache_app.connections import client
from cache_app.keys import Unkeyable


class Loader:
    """Counts its runs; answers what it was given."""

    def __init__(self, answer: Any = "value", delay_s: float = 0.0) -> None:
        self.answer, self.delay_s, self.runs = answer, delay_s, 0

    def __call__(self) -> Any:
        self.runs += 1
        time.sleep(self.delay_s)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def wrapped(loader: Loader, **options: Any) -> Any:
    @cached(**options)
    def function(a: Any = 1, b: Any = 2) -> Any:
        return loader()

    return function


@pytest.mark.parametrize("answer", [None, False, 0, [], {"a": 1}])
def test_cached__second_call__is_a_hit_with_the_same_value(answer: Any) -> None:
    loader = Loader(answer)
    function = wrapped(loader, ttl=60)
    assert function.lookup().hit is False
    found = function.lookup()
    assert (found.value, found.hit, loader.runs) == (answer, True, 1)
    assert 59 < found.ttl_s <= 60
    assert 0 <= found.age_s < 1


def test_cached__same_call_spelt_differently__is_one_entry() -> None:
    loader = Loader()
    function = wrapped(loader, ttl_s=60)
    function(1), function(a=1), function(1, b=2), function()
    assert loader.runs == 1
    function(2)
    assert loader.runs == 2


def test_cached__ttl_over__loads_again() -> None:
    loader = Loader()
    function = wrapped(loader, ttl_s=0.02)
    function()
    time.sleep(0.03)
    assert function.lookup().hit is False
    assert loader.runs == 2


def test_cached__ttl_none__never_expires() -> None:
    function = wrapped(Loader(), ttl_s=None)
    function()
    assert client().ttl(function.key()) == -1
    assert function.lookup().ttl_s is None


def test_cached__no_ttl_given__takes_the_default_of_the_settings() -> None:
    function = wrapped(Loader())
    function()
    assert 290 < client().ttl(function.key()) <= 300


def test_invalidate__one_call__leaves_the_others() -> None:
    loader = Loader()
    function = wrapped(loader, ttl_s=60)
    function(1), function(2)
    assert function.invalidate(1) is True
    assert function.invalidate(1) is False
    function(1), function(2)
    assert loader.runs == 3


def test_cached__version_raised__old_entries_are_not_read() -> None:
    first, second = Loader("old"), Loader("new")
    assert wrapped(first, ttl_s=60)() == "old"
    assert wrapped(second, ttl_s=60, version=2)() == "new"


def test_cached__key_function__decides_what_tells_calls_apart() -> None:
    loader = Loader()
    function = wrapped(loader, ttl_s=60, key=lambda a, b: a)
    function(1, object())
    function(1, object())
    assert loader.runs == 1


def test_cached__argument_without_a_key__raises_before_loading() -> None:
    loader = Loader()
    with pytest.raises(Unkeyable):
        wrapped(loader, ttl_s=60)(object())
    assert loader.runs == 0


def test_cached__loader_raises__nothing_is_kept() -> None:
    loader = Loader(ValueError("no"))
    function = wrapped(loader, ttl_s=60, lock=True)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            function()
    assert loader.runs == 2


def test_cached__result_without_a_json_form__raises_and_names_the_function() -> None:
    with pytest.raises(Uncacheable, match="function returned"):
        wrapped(Loader({1, 2}), ttl_s=60)()


def test_cached__tuple__is_the_same_list_on_miss_and_hit() -> None:
    function = wrapped(Loader((1, 2)), ttl_s=60)
    assert function() == function() == [1, 2]


def test_cached__corrupt_entry__is_loaded_again_and_counted() -> None:
    loader = Loader()
    function = wrapped(loader, ttl_s=60)
    client().set(function.key(), b"\x80\x05garbage")
    before = stats.of(_name())["corrupt"]
    assert function() == "value"
    assert function.lookup().hit is True
    assert stats.of(_name())["corrupt"] == before + 1


def _name() -> str:
    return f"{__name__}.wrapped.<locals>.function"


@pytest.mark.parametrize("wrong", [{"ttl_s": 1, "ttl": 1}, {"ttl_s": len}])
def test_cached__misuse__is_a_type_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        cached(**wrong)


def test_cached__ttl_not_positive__is_a_value_error() -> None:
    with pytest.raises(ValueError, match="positive"):
        cached(ttl_s=0)


def test_cached__fifty_threads_on_a_cold_key_with_lock__load_once() -> None:
    loader = Loader(delay_s=0.05)
    function = wrapped(loader, ttl_s=60, lock=True)
    values: list[Any] = []
    threads = [threading.Thread(target=lambda: values.append(function())) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (loader.runs, values) == (1, ["value"] * 50)


def _call(key: str) -> None:
    @cached(ttl_s=60, lock=True, key=lambda name: name)
    def load(name: str) -> int:
        time.sleep(0.1)
        return int(client().incr(name))

    load(key)


def test_cached__four_processes_on_a_cold_key_with_lock__load_once(prefix: str) -> None:
    fork = multiprocessing.get_context("fork")
    callers = [fork.Process(target=_call, args=(prefix,)) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [caller.exitcode for caller in callers] == [0] * 4
    assert client().get(prefix) == b"1"


def test_cached__rebuild_takes_longer_than_the_others_wait__they_load_themselves(settings: Any) -> None:
    settings.BRAIN = settings.BRAIN | {"CACHE": {"REBUILD_WAIT_S": 0.05}}
    loader = Loader(delay_s=0.3)
    function = wrapped(loader, ttl_s=60, lock=True)
    threads = [threading.Thread(target=function) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loader.runs == 2


async def test_cached__coroutine_function__hits_misses_and_invalidates() -> None:
    runs = 0

    @cached(ttl=300)
    async def expensive_operation(data: str) -> dict[str, str]:
        nonlocal runs
        runs += 1
        return {"got": data}

    assert await expensive_operation("x") == {"got": "x"}
    assert (await expensive_operation.lookup("x")).hit is True
    assert await expensive_operation.invalidate("x") is True
    await expensive_operation("x")
    assert runs == 2


async def test_cached__fifty_tasks_on_a_cold_key_with_lock__load_once() -> None:
    runs = 0

    @cached(ttl_s=60, lock=True)
    async def load() -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.05)

    found = await asyncio.gather(*(load.lookup() for _ in range(50)))
    assert (runs, {item.value for item in found}) == (1, {None})


@pytest.mark.usefixtures("redis_down")
@pytest.mark.parametrize("lock", [False, True])
def test_cached__redis_down__the_loader_answers_is_counted_and_logged_once(lock: bool) -> None:
    loader = Loader()
    function = wrapped(loader, ttl_s=60, lock=lock)
    before = stats.of(_name())["store_errors"]
    with structlog.testing.capture_logs() as lines:
        assert [function() for _ in range(3)] == ["value"] * 3
    assert loader.runs == 3
    assert stats.of(_name())["store_errors"] == before + 3
    assert [line["event"] for line in lines] == ["cache_store_down"]


@pytest.mark.usefixtures("redis_down", "raising")
def test_cached__redis_down_and_policy_raise__raises_before_loading() -> None:
    loader = Loader()
    with pytest.raises(redis.ConnectionError):
        wrapped(loader, ttl_s=60)()
    assert loader.runs == 0


@pytest.mark.usefixtures("redis_down")
async def test_cached__redis_down_async__the_loader_answers() -> None:
    @cached(ttl_s=60, lock=True)
    async def load() -> str:
        return "value"

    found = await load.lookup()
    assert (found.value, found.hit, found.ttl_s) == ("value", False, 0.0)


@pytest.mark.usefixtures("redis_down")
def test_cached__redis_down__the_loaders_own_error_goes_on() -> None:
    with pytest.raises(redis.RedisError, match="mine"):
        wrapped(Loader(redis.RedisError("mine")), ttl_s=60)()


def test_families__after_calls__carry_the_counts_per_function() -> None:
    function = wrapped(Loader(), ttl_s=60)
    function(), function()
    counts = stats.of(_name())
    samples = {
        s.name: s.value for f in stats.families() for s in f.samples if s.labels["function"] == _name()
    }
    assert samples["brain_cache_hits_total"] == counts["hits"] >= 1
    assert samples["brain_cache_loads_total"] == counts["loads"] >= 1
