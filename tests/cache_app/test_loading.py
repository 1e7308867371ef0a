from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest
import structlog
from django.conf import LazySettings

from cache_app import backends, background, cached, flights, loading, retries
from cache_app.calls import LoadTimeout

from .loaders import Counted, Loader, Thread, auntil, awrapped, followers, in_threads, until, wrapped


@pytest.fixture(params=["default", "tiered", "memory"], autouse=True)
def alias(request: pytest.FixtureRequest, settings: LazySettings, own_prefix: str) -> str:
    """Everything here holds on Redis with its leases and in memory with its local ones."""
    settings.CACHES = settings.CACHES | {
        "tiered": settings.CACHES["default"]
        | {"BACKEND": "cache_app.tiered.TieredCache", "KEY_PREFIX": f"{own_prefix}t"},
        "memory": {
            "BACKEND": "cache_app.memory.MemoryCache",
            "LOCATION": own_prefix,
            "KEY_PREFIX": own_prefix,
        },
    }
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    until(lambda: flights.in_the_air() == 0)


def is_locked(function: Any) -> bool:
    cache = backends.backend(function.alias)
    return bool(cache.lock(f"rebuild:{function.key()}", ttl_s=1.0).locked())


def stored(function: Any) -> Any:
    """What is kept, past its life or not; nobody loads for this."""
    return backends.backend(function.alias).read(function.key()).value


# --- one load for all ------------------------------------------------------------------------------------------------
def test_cold__two_hundred_threads__load_once_and_own_what_they_get(alias: str) -> None:
    loader = Loader({"a": []}, delay_s=0.05)
    function = wrapped(loader, ttl_s=60, alias=alias)
    counted = Counted(function, alias)
    values = in_threads(function, 200)
    assert (loader.runs, values) == (1, [{"a": []}] * 200)
    assert len({id(value) for value in values}) == 200
    assert counted.coalesced + counted.hits_l1 + counted.hits_l2 == 199
    assert (counted.loads, counted.load_errors, counted.lock_timeouts) == (1, 0, 0)


async def test_cold__two_hundred_tasks__load_once_and_own_what_they_get(alias: str) -> None:
    loader = Loader({"a": []}, delay_s=0.02)
    function = awrapped(loader, ttl_s=60, alias=alias)
    values = await asyncio.gather(*(function() for _ in range(200)))
    assert (loader.runs, values) == (1, [{"a": []}] * 200)
    assert len({id(value) for value in values}) == 200


def test_cold__loops_in_two_threads__load_once(alias: str) -> None:
    loader = Loader(delay_s=0.05)
    function = awrapped(loader, ttl_s=60, alias=alias)

    async def some() -> list[Any]:
        return await asyncio.gather(*(function() for _ in range(20)))

    found = in_threads(lambda: asyncio.run(some()), 2)
    assert (loader.runs, found) == (1, [["value"] * 20] * 2)


def test_cold__without_the_lease__one_load_per_process_all_the_same(alias: str) -> None:
    loader = Loader(delay_s=0.05)
    assert in_threads(wrapped(loader, ttl_s=60, alias=alias, lock=False), 50) == ["value"] * 50
    assert loader.runs == 1


def test_cold__loader_raises__all_who_wait_get_its_exception_and_nothing_is_kept(alias: str) -> None:
    loader = Loader(ValueError("no"))
    loader.may_end.clear()
    function = wrapped(loader, ttl_s=60, alias=alias)
    counted = Counted(function, alias)
    threads = [Thread(function) for _ in range(20)]
    until(lambda: counted.misses == 20 and followers() == 19)
    loader.may_end.set()
    assert [str(thread.done()) for thread in threads] == ["no"] * 20
    assert loader.runs == 1
    with pytest.raises(ValueError, match="no"):
        function()
    assert loader.runs == 2


def test_lease__somebody_else_loads__its_result_is_read_and_the_lease_is_free_again(alias: str) -> None:
    loader = Loader("mine")
    function = wrapped(loader, ttl_s=60, alias=alias)
    cache = backends.backend(alias)
    with cache.lock(f"rebuild:{function.key()}", ttl_s=60.0):
        thread = Thread(function)
        time.sleep(0.05)
        assert thread.is_alive()
        cache.write(function.key(), "theirs", ttl_s=60.0)
    assert thread.done() == "theirs"
    assert (loader.runs, is_locked(function)) == (0, False)


def test_lease__load_outlasts_it__is_renewed(alias: str, settings: LazySettings) -> None:
    """A lease that is over all the same, because the machine stopped this process, says nothing: a longer one then."""
    for lease_s in (0.15, 1.5, 6.0, 30.0):
        settings.BRAIN = settings.BRAIN | {"CACHE": {"REBUILD_LEASE_S": lease_s}}
        loader = Loader()
        loader.may_end.clear()
        function = wrapped(loader, ttl_s=60, alias=alias)
        thread = Thread(function)
        until(lambda loader=loader: loader.runs == 1)  # type: ignore[misc]
        time.sleep(2 * lease_s)
        was_renewed = is_locked(function)
        loader.may_end.set()
        assert thread.done() == "value"
        assert not is_locked(function)
        if was_renewed:
            break
        function.invalidate()
    assert was_renewed


def test_flight__leader_hangs__one_more_caller_loads_per_patience(alias: str, settings: LazySettings) -> None:
    settings.BRAIN = settings.BRAIN | {"CACHE": {"REBUILD_WAIT_S": 0.1}}
    loader = Loader(lambda run: run)
    loader.may_end.clear()
    function = wrapped(loader, ttl_s=60, alias=alias)
    counted = Counted(function, alias)
    threads = [Thread(function) for _ in range(20)]
    began = time.monotonic()
    until(lambda: loader.runs >= 2)
    loader.may_end.set()
    patiences = (time.monotonic() - began) / 0.1 + 1  # and of the first one a part before `began`
    assert len({thread.done() for thread in threads}) <= loader.runs
    assert loader.runs <= 2 + patiences
    assert counted.lock_timeouts >= 1


# --- ahead of its end ------------------------------------------------------------------------------------------------
def test_early__end_is_near__the_reader_is_answered_at_once_and_one_load_replaces_it(alias: str) -> None:
    loader = Loader(lambda run: run)
    function = wrapped(loader, ttl_s=60, alias=alias, early=1e9)
    counted = Counted(function, alias)
    loader.delay_s = 0.01  # it must have taken some time to be worth it
    assert function() == 1
    loader.may_end.clear()
    assert [function() for _ in range(20)] == [1] * 20
    until(lambda: loader.runs == 2)
    loader.may_end.set()
    until(lambda: counted.refreshes == 1 and flights.in_the_air() == 0)
    assert function.lookup().value == 2
    until(lambda: flights.in_the_air() == 0)
    assert counted.misses == 1


async def test_early__on_a_loop__one_task_replaces_it(alias: str) -> None:
    loader = Loader(lambda run: run, delay_s=0.01)
    function = awrapped(loader, ttl_s=60, alias=alias, early=1e9)
    assert await function() == 1
    loader.may_end.clear()
    assert [await function() for _ in range(20)] == [1] * 20
    await auntil(lambda: loader.runs == 2)
    loader.may_end.set()
    await auntil(lambda: flights.in_the_air() == 0)
    assert loader.runs == 2
    assert (await function.lookup()).value == 2
    await auntil(lambda: flights.in_the_air() == 0)


def test_early__another_process_is_at_it__nobody_waits_and_nobody_loads(alias: str) -> None:
    loader = Loader(delay_s=0.01)
    function = wrapped(loader, ttl_s=60, alias=alias, early=1e9)
    function()
    with backends.backend(alias).lock(f"rebuild:{function.key()}", ttl_s=60.0):
        assert function.lookup().hit is True
        until(lambda: flights.in_the_air() == 0)
    assert loader.runs == 1


def test_early__load_fails__the_entry_stays_and_it_is_said(alias: str) -> None:
    loader = Loader(lambda run: "value" if run == 1 else OSError("no"), delay_s=0.01)
    function = wrapped(loader, ttl_s=60, alias=alias, early=1e9)
    function()
    with structlog.testing.capture_logs() as lines:
        assert function() == "value"
        until(lambda: flights.in_the_air() == 0 and loader.runs >= 2)
        until(lambda: lines)
    assert lines[0]["event"] == "cache_background_load_failed"
    assert function.lookup().hit is True


def test_early__off__the_end_is_a_miss(alias: str) -> None:
    loader = Loader(delay_s=0.05)
    function = wrapped(loader, ttl_s=0.06, alias=alias, early=0)
    counted = Counted(function, alias)
    function(), function()
    time.sleep(0.07)
    assert function.lookup().hit is False
    assert counted.refreshes == 0


# --- past its life ---------------------------------------------------------------------------------------------------
def test_stale__loader_raises_past_its_life__the_entry_answers(alias: str) -> None:
    loader = Loader(lambda run: "value" if run == 1 else OSError("no"))
    function = wrapped(loader, ttl_s=0.03, stale_s=60, retry_s=0, alias=alias)
    counted = Counted(function, alias)
    function()
    time.sleep(0.04)
    with structlog.testing.capture_logs() as lines:
        found = function.lookup()
        assert function() == "value"
    assert (found.value, found.stale, found.ttl_s) == ("value", True, 0.0)
    assert found.age_s >= 0.04
    assert (counted.stale, counted.load_errors, loader.runs) == (2, 2, 3)
    assert [line["event"] for line in lines].count("cache_stale_answered") == 1


async def test_stale__on_a_loop__the_entry_answers_all_who_wait(alias: str) -> None:
    loader = Loader(lambda run: "value" if run == 1 else OSError("no"))
    function = awrapped(loader, ttl_s=0.03, stale_s=60, alias=alias)
    await function()
    await asyncio.sleep(0.04)
    loader.may_end.clear()
    counted = Counted(function, alias)
    tasks = [asyncio.ensure_future(function()) for _ in range(20)]
    await auntil(lambda: counted.misses == 20)
    loader.may_end.set()
    assert await asyncio.gather(*tasks) == ["value"] * 20
    assert (loader.runs, counted.stale) == (2, 20)


def test_stale__load_has_failed__is_not_tried_again_for_a_moment(alias: str) -> None:
    loader = Loader(lambda run: OSError("no") if run == 2 else run)
    function = wrapped(loader, ttl_s=0.03, stale_s=120, retry_s=60, alias=alias)
    function()
    time.sleep(0.04)
    assert [function() for _ in range(20)] == [1] * 20
    assert loader.runs == 2
    loader.runs = 1
    retries.forget(next(seat for seat in retries._until if function.key() in str(seat)))
    function = wrapped(loader, ttl_s=0.03, stale_s=120, retry_s=0.05, alias=alias)
    assert function() == 1
    time.sleep(0.06)
    assert function() == 3
    time.sleep(0.04)
    assert function() == 4  # a success ends it


def test_early__load_has_failed__is_not_tried_again_for_a_moment(alias: str) -> None:
    loader = Loader(lambda run: "value" if run == 1 else OSError("no"), delay_s=0.01)
    function = wrapped(loader, ttl_s=60, alias=alias, early=1e9, retry_s=60)
    for _ in range(20):
        assert function() == "value"
        until(lambda: flights.in_the_air() == 0)
    assert loader.runs == 2


def test_soft_timeout__load_hangs__the_next_callers_do_not_wait(alias: str) -> None:
    loader = Loader(lambda run: run)
    function = wrapped(loader, ttl_s=0.05, stale_s=120, soft_timeout_s=0.1, retry_s=60, alias=alias, early=0)
    counted = Counted(function, alias)
    function()
    time.sleep(0.06)
    loader.may_end.clear()
    assert [function() for _ in range(21)] == [1] * 21
    assert counted.soft_timeouts == 1
    loader.may_end.set()
    until(lambda: flights.in_the_air() == 0)
    assert loader.runs == 2


def test_stale__older_than_that__the_exception_goes_on(alias: str) -> None:
    loader = Loader(lambda run: "value" if run == 1 else OSError("no"))
    function = wrapped(loader, ttl_s=0.02, stale_s=0.02, alias=alias)
    function()
    time.sleep(0.06)
    with pytest.raises(OSError, match="no"):
        function()


def test_stale__entry_was_invalidated__never_answers(alias: str) -> None:
    loader = Loader(lambda run: "value" if run == 1 else OSError("no"))
    function = wrapped(loader, ttl_s=0.02, stale_s=60, alias=alias, tags=["t"])
    function()
    time.sleep(0.03)
    backends.backend(alias).invalidate_tags("t")
    with pytest.raises(OSError, match="no"):
        function()


# --- loads that take too long ----------------------------------------------------------------------------------------
def test_soft_timeout__load_takes_longer__stale_at_once_then_the_new_one(alias: str) -> None:
    loader = Loader(lambda run: run)
    function = wrapped(loader, ttl_s=0.05, stale_s=60, soft_timeout_s=0.03, alias=alias, early=0)
    counted = Counted(function, alias)
    function()
    time.sleep(0.06)
    loader.may_end.clear()
    began = time.monotonic()
    found = function.lookup()  # the load goes on until it is told to end
    assert (found.value, found.stale) == (1, True)
    assert time.monotonic() - began > 0.02
    assert counted.soft_timeouts == 1
    loader.may_end.set()
    until(lambda: flights.in_the_air() == 0)
    assert stored(function) == 2
    assert loader.runs == 2


def test_hard_timeout__an_entry_past_its_life__answers(alias: str) -> None:
    loader = Loader(lambda run: run)
    wrapped(loader, ttl_s=0.03, stale_s=60, alias=alias)()
    function = wrapped(loader, ttl_s=0.03, stale_s=60, hard_timeout_s=0.1, alias=alias)
    counted = Counted(function, alias)
    time.sleep(0.04)
    loader.may_end.clear()
    assert function.lookup().stale is True
    assert counted.hard_timeouts == 1
    loader.may_end.set()


def test_hard_timeout__nothing_to_answer__raises_and_the_load_goes_on(alias: str) -> None:
    loader = Loader()
    loader.may_end.clear()
    function = wrapped(loader, ttl_s=60, hard_timeout_s=0.05, alias=alias)
    counted = Counted(function, alias)
    found = in_threads(function, 5)
    assert {type(error) for error in found} == {LoadTimeout}
    assert "function was not loaded within 0.05 s" in str(found[0])
    loader.may_end.set()
    until(lambda: flights.in_the_air() == 0)
    assert function.lookup().hit is True
    assert (loader.runs, counted.hard_timeouts) == (1, 5)


async def test_timeouts__on_a_loop__soft_answers_and_hard_raises(alias: str) -> None:
    loader = Loader(lambda run: run)
    loader.may_end.clear()
    function = awrapped(loader, ttl_s=0.05, stale_s=60, soft_timeout_s=0.02, hard_timeout_s=0.05, alias=alias)
    with pytest.raises(LoadTimeout):
        await function()
    loader.may_end.set()
    await auntil(lambda: flights.in_the_air() == 0)
    assert stored(function) == 1
    await asyncio.sleep(0.06)
    loader.may_end.clear()
    assert (await function.lookup()).stale is True
    loader.may_end.set()
    await auntil(lambda: flights.in_the_air() == 0)
    assert stored(function) == 2


def test_timeouts__load_is_in_time__is_the_answer_and_knows_its_context(alias: str) -> None:
    request: ContextVar[str] = ContextVar("request", default="none")
    request.set("r1")
    function = wrapped(Loader(lambda run: request.get()), ttl_s=60, hard_timeout_s=60, alias=alias)
    assert function() == "r1"


def test_timeouts__load_raises_in_the_background__the_caller_gets_it(alias: str) -> None:
    function = wrapped(Loader(OSError("no")), ttl_s=60, hard_timeout_s=60, alias=alias)
    with pytest.raises(OSError, match="no"):
        function()


def test_timeouts__nested_beyond_the_number_of_threads__do_not_wait_for_each_other(
    alias: str, settings: LazySettings
) -> None:
    settings.BRAIN = settings.BRAIN | {"CACHE": {"REFRESH_THREADS": 1}}
    inner = wrapped(Loader("inner"), ttl_s=60, hard_timeout_s=60, alias=alias)
    outer = wrapped(Loader(lambda run: inner()), ttl_s=60, hard_timeout_s=60, alias=alias, version=2)
    assert outer() == "inner"


def test_timeouts__no_room_in_the_background__counts_as_too_long(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "BACKLOG", 0)
    loader = Loader()
    with pytest.raises(LoadTimeout):
        wrapped(loader, ttl_s=60, hard_timeout_s=60, alias=alias)()
    assert loader.runs == 0


# --- calls within calls ----------------------------------------------------------------------------------------------
def test_nested__one_cached_function_calls_another__both_are_kept(alias: str) -> None:
    inner_loader = Loader("inner")
    inner = wrapped(inner_loader, ttl_s=60, alias=alias)
    outer = wrapped(Loader(lambda run: [inner(), inner()]), ttl_s=60, alias=alias, version=2)
    assert outer() == outer() == ["inner", "inner"]
    assert inner_loader.runs == 1


def test_nested__recursion_with_the_same_arguments__loads_without_waiting_for_itself(alias: str) -> None:
    depth = 0

    @cached(ttl_s=60, alias=alias)
    def down() -> int:
        nonlocal depth
        depth += 1
        return 0 if depth == 3 else 1 + down()

    assert down() == 2
    assert down.lookup().value == 2


async def test_nested__recursion_in_a_task_of_its_own__loads_without_waiting_for_itself(alias: str) -> None:
    depth = 0

    @cached(ttl_s=60, alias=alias)
    async def down() -> int:
        nonlocal depth
        depth += 1
        if depth == 3:
            return 0
        return 1 + (await asyncio.gather(down()))[0]

    assert await asyncio.wait_for(down(), 60) == 2


def test_nested__two_functions_that_wait_for_each_other__both_end(alias: str) -> None:
    both = threading.Barrier(2)
    met = {"a": False, "b": False}

    def loader(mine: str, other: str) -> Any:
        if not met[mine]:
            met[mine] = True
            both.wait(60)
            return [mine, functions[other]()]
        return [mine]

    functions: dict[str, Any] = {
        "a": cached(ttl_s=60, alias=alias, key=lambda: "a")(lambda: loader("a", "b")),
        "b": cached(ttl_s=60, alias=alias, key=lambda: "b")(lambda: loader("b", "a")),
    }
    threads = [Thread(functions[name]) for name in "ab"]
    found = [thread.done() for thread in threads]
    assert ["a", ["b", ["a"]]] in found or ["b", ["a", ["b"]]] in found


async def test_sync_call_on_the_loop__its_own_task_is_loading__does_not_wait_for_it(alias: str) -> None:
    loader = Loader("async")
    loader.may_end.clear()
    cache = backends.backend(alias)
    task = asyncio.ensure_future(loading.aget_or_load(cache, "k", loader.awaited, ttl_s=60))
    await auntil(lambda: loader.runs == 1)
    assert loading.get_or_load(cache, "k", lambda: "sync", ttl_s=60) == "sync"
    loader.may_end.set()
    assert await task == "async"


async def test_sync_call_on_the_loop__a_thread_is_loading__waits_for_it(alias: str) -> None:
    loader = Loader(delay_s=0.05)
    function = wrapped(loader, ttl_s=60, alias=alias)
    thread = Thread(function)
    until(lambda: loader.runs == 1)
    assert function() == "value"
    assert await asyncio.to_thread(thread.done) == "value"
    assert loader.runs == 1


# --- cancelled -------------------------------------------------------------------------------------------------------
async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled__leader_while_it_loads__one_of_the_others_loads(alias: str) -> None:
    loader = Loader(lambda run: run)
    loader.may_end.clear()
    function = awrapped(loader, ttl_s=60, alias=alias)
    leader = asyncio.ensure_future(function())
    await auntil(lambda: loader.runs == 1)
    others = [asyncio.ensure_future(function()) for _ in range(10)]
    await asyncio.sleep(0.01)
    await cancelled(leader)
    await auntil(lambda: loader.runs == 2)
    loader.may_end.set()
    assert await asyncio.gather(*others) == [2] * 10
    assert (loader.runs, is_locked(function)) == (2, False)


async def test_cancelled__leader_without_others__loads_no_more_and_frees_the_lease(alias: str) -> None:
    loader = Loader()
    loader.may_end.clear()
    function = awrapped(loader, ttl_s=60, alias=alias)
    leader = asyncio.ensure_future(function())
    await auntil(lambda: loader.runs == 1)
    await cancelled(leader)
    assert flights.in_the_air() == 0
    await auntil(lambda: not is_locked(function))
    loader.may_end.set()
    assert (await function.lookup()).hit is False


async def test_cancelled__follower__leaves_the_leader_alone(alias: str) -> None:
    loader = Loader()
    loader.may_end.clear()
    function = awrapped(loader, ttl_s=60, alias=alias)
    leader = asyncio.ensure_future(function())
    await auntil(lambda: loader.runs == 1)
    follower = asyncio.ensure_future(function())
    await asyncio.sleep(0.01)
    await cancelled(follower)
    loader.may_end.set()
    assert (await leader, loader.runs) == ("value", 1)


async def test_cancelled__leader_while_it_waits_for_the_lease__another_one_gets_it(alias: str) -> None:
    loader = Loader()
    function = awrapped(loader, ttl_s=60, alias=alias)
    lock = backends.backend(alias).lock(f"rebuild:{function.key()}", ttl_s=60.0)
    await lock.aacquire()
    leader = asyncio.ensure_future(function())
    await asyncio.sleep(0.03)
    follower = asyncio.ensure_future(function())
    await asyncio.sleep(0.01)
    await cancelled(leader)
    await asyncio.sleep(0.01)
    await lock.arelease()
    assert (await follower, loader.runs, is_locked(function)) == ("value", 1, False)


@pytest.mark.parametrize("method", ["aread", "awrite"])
async def test_cancelled__leader_while_the_store_is_asked__hands_over(
    alias: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = Loader()
    function = awrapped(loader, ttl_s=60, alias=alias)
    cache = backends.backend(alias)
    original, held = getattr(cache, method), asyncio.Event()
    slow_from = 2 if method == "aread" else 1  # the second read is the leader's, under the lease
    calls = 0

    async def slow(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == slow_from:
            held.set()
            await asyncio.sleep(600)
        return await original(*args, **kwargs)

    monkeypatch.setattr(cache, method, slow)
    leader = asyncio.ensure_future(function())
    await asyncio.wait_for(held.wait(), 60)
    follower = asyncio.ensure_future(function())
    await asyncio.sleep(0.01)
    await cancelled(leader)
    assert await asyncio.wait_for(follower, 60) == "value"
    assert is_locked(function) is False


async def test_cancelled__caller_of_a_load_with_a_limit__the_load_goes_on_and_stores(alias: str) -> None:
    loader = Loader()
    loader.may_end.clear()
    function = awrapped(loader, ttl_s=60, hard_timeout_s=60, alias=alias)
    caller = asyncio.ensure_future(function())
    await auntil(lambda: loader.runs == 1)
    await cancelled(caller)
    loader.may_end.set()
    await auntil(lambda: flights.in_the_air() == 0)
    assert ((await function.lookup()).hit, loader.runs) == (True, 1)


def test_cancelled__loop_ends_with_a_load_in_the_background__quietly(alias: str) -> None:
    loader = Loader()
    loader.may_end.clear()
    function = awrapped(loader, ttl_s=60, hard_timeout_s=0.02, alias=alias)

    async def main() -> None:
        with pytest.raises(LoadTimeout):
            await function()

    with structlog.testing.capture_logs() as lines:
        asyncio.run(main())
    assert (flights.in_the_air(), [line for line in lines if line["log_level"] != "info"]) == (0, [])
    until(lambda: not is_locked(function))


# --- without a decorator ---------------------------------------------------------------------------------------------
def test_get_or_load__cold_then_warm__loads_once_and_takes_the_options(alias: str) -> None:
    cache, loader = backends.backend(alias), Loader({"a": 1})
    for _ in range(2):
        assert loading.get_or_load(cache, "k", loader, ttl=60, tags=["t"], name="mine") == {"a": 1}
    assert loader.runs == 1
    assert cache.get("k") == {"a": 1}
    cache.invalidate_tags("t")
    loading.get_or_load(cache, "k", loader, ttl_s=60, tags=["t"])
    assert loader.runs == 2
    with pytest.raises(TypeError, match="unexpected"):
        loading.get_or_load(cache, "k", loader, tll=60)


def test_get_or_set__fifty_threads__call_the_default_once(alias: str) -> None:
    cache, loader = backends.backend(alias), Loader({"a": 1}, delay_s=0.05)
    found = in_threads(lambda: cache.get_or_set("k", loader, 60), 50)
    assert (loader.runs, found) == (1, [{"a": 1}] * 50)
    assert 20 < (cache.ttl("k") or 0) <= 60


def test_get_or_set__plain_value_none_and_no_time__as_django_does(alias: str) -> None:
    cache = backends.backend(alias)
    assert (cache.get_or_set("a", 5), cache.get_or_set("a", 6)) == (5, 5)
    assert cache.incr("a") == 6
    assert (cache.get_or_set("n", lambda: None), cache.get("n", "missing")) == (None, None)
    assert (cache.get_or_set("z", lambda: 1, 0), cache.get("z")) == (1, None)
    assert cache.get_or_set("v", 1, version=2) == 1
    assert (cache.get("v"), cache.get("v", version=2)) == (None, 1)


async def test_aget_or_set__coroutine_function_callable_or_value__fifty_tasks_call_it_once(
    alias: str,
) -> None:
    cache, loader = backends.backend(alias), Loader([1], delay_s=0.02)
    found = await asyncio.gather(*(cache.aget_or_set("k", loader.awaited, 60) for _ in range(50)))
    assert (loader.runs, found) == (1, [[1]] * 50)
    assert await cache.aget_or_set("c", lambda: 5) == 5
    assert await cache.aget_or_set("p", 6) == 6
    assert await cache.aget_or_set("z", loader.awaited, 0) == [1]
    assert await cache.aget("z") is None
