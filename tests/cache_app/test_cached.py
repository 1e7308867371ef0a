from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import threading
import time
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest
import redis
import structlog

from cache_app import backends, cached, decorators, flights, stats
from cache_app.calls import Call
from cache_app.codec import Uncacheable
from cache_app.connections import client
from cache_app.entries import Read
from cache_app.keys import Unkeyable
from cache_app.store import StoreFailed
from tests import servers

from .loaders import Counted, Loader, Thread, awrapped, followers, until, wrapped


@pytest.mark.parametrize("answer", [None, False, 0, [], {"a": 1}])
def test_cached__second_call__is_a_hit_with_the_same_value(answer: Any) -> None:
    loader = Loader(answer)
    function = wrapped(loader, ttl=60)
    assert function.lookup().hit is False
    found = function.lookup()
    assert (found.value, found.hit, loader.runs) == (answer, True, 1)
    assert 30 < found.ttl_s <= 60
    assert 0 <= found.age_s < 30


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
    assert 250 < client().ttl(function.key()) <= 300


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
    function = wrapped(Loader(), ttl_s=60)
    client().set(function.key(), b"\x80\x05garbage")
    before = stats.counts("default").events().get("corrupt", 0)
    assert function() == "value"
    assert function.lookup().hit is True
    assert stats.counts("default").events()["corrupt"] > before


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
    loader = Loader()
    loader.may_end.clear()
    function = wrapped(loader, ttl_s=60, lock=True)
    threads = [Thread(function) for _ in range(2)]
    until(lambda: loader.runs == 2)
    loader.may_end.set()
    assert [thread.done() for thread in threads] == ["value"] * 2


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
    counted = Counted(function)
    with structlog.testing.capture_logs() as lines:
        assert [function() for _ in range(3)] == ["value"] * 3
    assert loader.runs == 3
    assert (counted.store_errors, counted.misses) == (3, 0)
    assert [line["event"] for line in lines].count("cache_store_down") == 1


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
    counts = stats.counts("default", function.name).events()
    samples = {
        sample.name: sample.value
        for family in stats.families()
        for sample in family.samples
        if (sample.labels.get("alias"), sample.labels.get("namespace")) == ("default", function.name)
    }
    assert samples["brain_cache_hits_l2_total"] == counts["hits_l2"] >= 1
    assert samples["brain_cache_loads_total"] == counts["loads"] >= 1


# --- what tells calls apart ------------------------------------------------------------------------------------------
def test_key__of_a_call__is_readable(own_prefix: str) -> None:
    function = wrapped(Loader(), ttl_s=60, version=3)
    name = "tests.cache_app.loaders.wrapped.<locals>.function"
    assert function.key(7, b="x") == f"{own_prefix}:cached:{name}:3(a=7,b='x')"


def test_vary__surroundings_change__is_another_entry() -> None:
    language = ContextVar("language", default="de")
    loader = Loader(lambda run: language.get())
    function = wrapped(loader, ttl_s=60, vary=[language.get, lambda: 7])
    assert function() == function() == "de"
    language.set("en")
    assert function() == function() == "en"
    assert function.key().endswith("(a=1,b=2|'en'|7)")
    assert loader.runs == 2


def test_vary__value_that_looks_like_an_argument__is_not_taken_for_one() -> None:
    surroundings: list[Any] = ["x"]
    function = wrapped(Loader(), vary=[lambda: surroundings[0]])
    assert function.key("1|'x'") != function.key(1)
    first = function.key("a")
    surroundings[0] = "a'|'x"
    assert function.key() != first


def test_key__method__tells_objects_apart_by_what_it_returns() -> None:
    class Shop:
        def __init__(self, pk: int) -> None:
            self.pk, self.runs = pk, 0

        @cached(ttl_s=60, key=lambda self, day: (self.pk, day))
        def total(self, day: str) -> str:
            self.runs += 1
            return f"{self.pk} on {day}"

        @cached(ttl_s=60, key=lambda self: self.pk)
        async def name(self) -> str:
            self.runs += 1
            return f"shop {self.pk}"

    one, two = Shop(1), Shop(2)
    assert (one.total("mon"), one.total("mon"), two.total("mon")) == ("1 on mon", "1 on mon", "2 on mon")
    assert (one.runs, two.runs) == (1, 1)
    assert Shop.total.invalidate(one, "mon") is True
    one.total("mon"), two.total("mon")
    assert (one.runs, two.runs) == (2, 1)
    assert asyncio.run(_all(one.name(), Shop(1).name(), two.name())) == ["shop 1", "shop 1", "shop 2"]
    assert (one.runs, two.runs) == (3, 2)


async def _all(*calls: Any) -> list[Any]:
    return [await call for call in calls]


def test_key__static_and_class_method__need_none() -> None:
    runs: list[int] = []

    class Shop:
        @staticmethod
        @cached(ttl_s=60)
        def twice(n: int) -> int:
            runs.append(n)
            return n * 2

    assert (Shop.twice(2), Shop().twice(n=2), runs) == (4, 4, [2])


def test_alias__another_cache__keeps_it_there(settings: Any, own_prefix: str) -> None:
    settings.CACHES = settings.CACHES | {
        "other": settings.CACHES["default"] | {"KEY_PREFIX": f"{own_prefix}o"}
    }
    function = wrapped(Loader(), ttl_s=60, alias="other")
    counted = Counted(function, "other")
    function(), function()
    assert function.key().startswith(f"{own_prefix}o:cached:")
    assert client().exists(function.key()) == 1
    assert (counted.hits_l2, counted.loads) == (1, 1)


def test_backend__another_one_is_chosen__is_what_is_used_from_then_on(settings: Any, own_prefix: str) -> None:
    settings.CACHES = settings.CACHES | {
        "other": settings.CACHES["default"] | {"KEY_PREFIX": f"{own_prefix}o"}
    }
    loader = Loader()
    function = wrapped(loader, ttl_s=60)
    function()
    backends.choose(backends.backend("other"))
    try:
        function(), function()
        assert function.key().startswith(f"{own_prefix}o:")
    finally:
        backends.choose(None)
    function()
    assert loader.runs == 2


# --- what ends them early --------------------------------------------------------------------------------------------
def test_tags__one_is_invalidated__its_results_are_loaded_again() -> None:
    loader = Loader(lambda run: run)
    function = wrapped(loader, ttl_s=60, tags=lambda a, b=2: [f"a:{a}", "all"])
    assert (function(1), function(2)) == (1, 2)
    cache = backends.backend()
    cache.invalidate_tags("a:1")
    assert (function(1), function(2)) == (3, 2)
    cache.invalidate_tags("all")
    assert (function(1), function(2)) == (4, 5)


async def test_tags__on_a_loop__end_results_too() -> None:
    loader = Loader(lambda run: run)
    function = awrapped(loader, ttl_s=60, tags=["t"])
    assert (await function(), await function()) == (1, 1)
    await backends.backend().ainvalidate_tags("t")
    assert await function() == 2


def test_tags__invalidated_while_it_loads__the_result_is_answered_and_over_at_once() -> None:
    cache = backends.backend()

    def load(run: int) -> str:
        if run == 1:
            cache.invalidate_tags("t")  # somebody changes a row that this load has read already
            return "old"
        return "new"

    function = wrapped(Loader(load), ttl_s=60, tags=["t"])
    assert [function(), function(), function()] == ["old", "new", "new"]


def test_invalidate__store_down__says_so_or_raises(redis_down: Any) -> None:
    with pytest.raises(redis.ConnectionError):
        wrapped(Loader(), ttl_s=60).invalidate()


# --- what is kept ----------------------------------------------------------------------------------------------------
def test_unless__is_true__is_answered_and_not_stored() -> None:
    loader = Loader(lambda run: {"run": run})
    function = wrapped(loader, ttl_s=60, unless=lambda found: found["run"] < 3)
    assert [function()["run"] for _ in range(4)] == [1, 2, 3, 3]


def test_unless__result_without_a_form_in_the_store__is_answered_as_it_is() -> None:
    function = wrapped(Loader({1, 2}), ttl_s=60, unless=lambda found: True)
    assert function() == {1, 2}


def test_negative__result_is_none__has_a_life_of_its_own() -> None:
    loader = Loader(lambda run: None if run == 1 else "value")
    function = wrapped(loader, ttl_s=60, negative_ttl_s=25)
    assert (function(), function(), loader.runs) == (None, None, 1)
    assert function.lookup().ttl_s <= 25
    function.invalidate()
    loader.runs = 0
    function = wrapped(loader, ttl_s=60, negative_ttl_s=0.03)
    assert function() is None
    time.sleep(0.04)
    assert function() == "value"
    assert function.lookup().ttl_s > 30


def test_negative__callable_says_what_is__none_is_not() -> None:
    function = wrapped(Loader([]), ttl_s=60, negative=lambda found: not found, negative_ttl_s=5)
    function()
    assert function.lookup().ttl_s <= 5
    none = wrapped(Loader(None), ttl_s=60, negative=lambda found: found == [], negative_ttl_s=5, version=2)
    none()
    assert none.lookup().ttl_s > 5


def test_sliding__is_read_in_time__lives_on() -> None:
    loader, store = Loader(), backends.backend().store
    function = wrapped(loader, ttl_s=60, sliding=True)
    function()
    assert store.expire(function.key(), 25.0)
    assert function() == "value"
    assert 30 < (store.ttl_s(function.key()) or 0) <= 60
    assert loader.runs == 1
    store.expire(function.key(), 0.02)
    time.sleep(0.03)
    function()
    assert loader.runs == 2


@pytest.mark.parametrize("is_error", [False, True])
def test_sliding__negative_results_and_errors__end_all_the_same(is_error: bool) -> None:
    loader = Loader(KeyError("k") if is_error else None)
    kept = {"cache_errors": (KeyError,), "error_ttl_s": 0.3} if is_error else {"negative_ttl_s": 0.3}
    function = wrapped(loader, ttl_s=60, sliding=True, **kept)
    for _ in range(4):
        with contextlib.suppress(KeyError):
            function()
        time.sleep(0.15)
    assert loader.runs > 1


def test_jitter__many_calls__end_apart_and_never_later() -> None:
    function = wrapped(Loader(), ttl_s=1000, jitter=0.5)
    lives = []
    for n in range(20):
        function(n)
        lives.append(function.lookup(n).ttl_s)
    assert all(470 <= life <= 1000 for life in lives)
    assert max(lives) - min(lives) > 50


class Missing(Exception):
    pass


class MissingToo(Missing):
    pass


class Picky(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(f"number {number}")


def test_errors__of_a_listed_class__are_kept_and_made_anew() -> None:
    loader = Loader(Missing("x", 7, None))
    function = wrapped(loader, ttl_s=60, cache_errors=(Missing,), error_ttl_s=50)
    raised = []
    for _ in range(3):
        with pytest.raises(Missing) as caught:
            function()
        raised.append(caught.value)
    assert loader.runs == 1
    assert {error.args for error in raised} == {("x", 7, None)}
    assert raised[1] is not raised[2]
    assert backends.backend().store.expire(function.key(), 0.02)
    time.sleep(0.03)
    loader.answer = "value"
    assert function() == function() == "value"
    assert loader.runs == 2


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), MissingToo("x"), Missing(object()), Missing((1, 2)), Missing(float("nan")), Picky(3)],
    ids=["not listed", "subclass", "no JSON", "a tuple", "no number", "own constructor"],
)
def test_errors__not_listed_or_not_to_be_made_anew__are_not_kept(error: Exception) -> None:
    loader = Loader(error)
    function = wrapped(loader, ttl_s=60, cache_errors=(Missing, Picky), error_ttl_s=60)
    for _ in range(2):
        with pytest.raises(type(error)):
            function()
    assert loader.runs == 2


def test_errors__values_beside_them__are_what_they_were() -> None:
    function = wrapped(Loader({"error": "x", "args": []}), ttl_s=60, cache_errors=(Missing,), error_ttl_s=60)
    assert function() == function() == {"error": "x", "args": []}
    plain = wrapped(Loader("plain"), ttl_s=60)
    assert plain() == "plain"  # never reads what the other has stored


def test_errors__entry_names_a_class_that_is_not_listed__is_loaded_and_never_made() -> None:
    loader = Loader("value")
    function = wrapped(loader, ttl_s=60, cache_errors=(Missing,), error_ttl_s=60)
    cache = backends.backend()
    cache.write(function.key(), {"error": "builtins.SystemExit", "args": [1]}, ttl_s=60.0)
    assert (function(), loader.runs) == ("value", 1)


def test_errors__stale_entry_at_hand__is_not_given_up_for_one() -> None:
    loader = Loader(lambda run: "value" if run == 1 else Missing("x"))
    function = wrapped(loader, ttl_s=0.03, stale_s=60, retry_s=0, cache_errors=(Missing,), error_ttl_s=60)
    function()
    time.sleep(0.04)
    assert [function(), function()] == ["value", "value"]
    assert loader.runs == 3


def test_errors__loader_raises_ahead_of_the_end__the_value_that_lives_stays() -> None:
    loader = Loader(lambda run: "value" if run == 1 else Missing("x"), delay_s=0.01)
    function = wrapped(loader, ttl_s=60, early=1e9, cache_errors=(Missing,), error_ttl_s=60)
    function(), function()
    until(lambda: flights.in_the_air() == 0 and loader.runs >= 2)
    assert function.lookup().value == "value"
    until(lambda: flights.in_the_air() == 0)


def test_errors__of_many_callers__keep_the_traceback_of_the_load_alone() -> None:
    loader = Loader(ValueError("no"))
    loader.may_end.clear()
    function = wrapped(loader, ttl_s=60)
    counted = Counted(function)
    threads = [Thread(function) for _ in range(20)]
    until(lambda: counted.misses == 20 and followers() == 19)
    loader.may_end.set()
    errors = [thread.done() for thread in threads]
    frames = traceback.extract_tb(errors[-1].__traceback__)
    assert len(frames) < 40
    assert [frame.name for frame in frames][-1] == "_answered"


# --- the store is down -----------------------------------------------------------------------------------------------
def test_store_down__alias_answers_with_the_last_known__so_does_a_cached_function(
    settings: Any, own_prefix: str
) -> None:
    loader = Loader({"a": 1})
    with servers.scratch("stale") as folder:
        path = folder / "s"
        settings.CACHES = settings.CACHES | {
            "stale": settings.CACHES["default"]
            | {"LOCATION": f"unix://{path}?db=0", "OPTIONS": {"ON_DOWN": "stale"}}
        }
        function = wrapped(loader, ttl_s=60, alias="stale")
        with servers.valkey(unix_socket=path):
            function()
        found = function.lookup()
    assert (found.value, found.hit, found.stale, loader.runs) == ({"a": 1}, True, True, 1)
    assert function(7) == {"a": 1}
    assert loader.runs == 2


def test_store_down__last_known_is_an_exception_of_another_code__is_no_answer(
    own_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = Loader({"a": 1})
    function = wrapped(loader, ttl_s=60, cache_errors=(KeyError,), error_ttl_s=5)
    monkeypatch.setattr(Call, "last_known", lambda call: Read({"error": "old.Gone"}, None, True, {}))

    def down(*_: Any, **__: Any) -> Any:
        raise StoreFailed from redis.ConnectionError("down")

    monkeypatch.setattr(backends.backend(), "read", down)
    assert function() == {"a": 1}


# --- warm ------------------------------------------------------------------------------------------------------------
def test_warm__listed_calls__are_made_and_known_by_name() -> None:
    loader = Loader()
    function = wrapped(loader, ttl_s=60, warm=lambda: [((1,), {}), ((), {"a": 2})])
    assert decorators.known()[function.name] is function
    assert (function.warm(), function.warm(), loader.runs) == (2, 0, 2)
    assert function.lookup(2).hit is True
    assert wrapped(Loader()).warm is None


async def test_warm__coroutine_function__is_awaited() -> None:
    function = awrapped(Loader(), ttl_s=60, warm=lambda: [((n,), {}) for n in range(3)])
    assert (await function.warm(), await function.warm()) == (3, 0)


# --- misuse ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"negative_ttl_s": 0}, ValueError),
        ({"negative": bool}, ValueError),
        ({"jitter": 0.6}, ValueError),
        ({"early": -1}, ValueError),
        ({"stale_s": -1}, ValueError),
        ({"retry_s": -1}, ValueError),
        ({"soft_timeout_s": 1}, ValueError),
        ({"hard_timeout_s": 0}, ValueError),
        ({"ttl_s": None, "sliding": True}, ValueError),
        ({"sliding": True, "stale_s": 5}, ValueError),
        ({"cache_errors": (OSError,)}, ValueError),
        ({"error_ttl_s": 5}, ValueError),
        ({"cache_errors": ("OSError",), "error_ttl_s": 5}, TypeError),
        ({"tags": "one"}, TypeError),
        ({"ttl_s": float("nan")}, ValueError),
    ],
    ids=repr,
)
def test_cached__what_cannot_be_meant__is_said_when_it_is_declared(
    wrong: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        wrapped(Loader(), **wrong)


def test_cached__generator__is_refused() -> None:
    with pytest.raises(TypeError, match="list"):

        @cached()
        def numbers() -> Iterator[int]:
            yield 1


def test_cached__no_such_alias__says_which_there_are() -> None:
    with pytest.raises(Exception, match="no alias 'nope'"):
        wrapped(Loader(), alias="nope")()
