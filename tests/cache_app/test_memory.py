"""Memory as a store: bounds, ends, threads, forks."""

from __future__ import annotations

import math
import os
import random
import sys
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_app import connections
from cache_app.memory import MemoryStore, estimate_bytes
from cache_app.store import EXISTING, NEW, Held
from tests.depth import examples

POLICIES = ["tinylfu", "lru"]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def counting() -> tuple[dict[str, int], Any]:
    counts: dict[str, int] = {}

    def count(event: str, n: int) -> None:
        counts[event] = counts.get(event, 0) + n

    return counts, count


# --- bounds ----------------------------------------------------------------------------------------------------------
steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["set", "set", "set", "get", "delete", "incr", "expire", "tick", "versions", "raise"]
        ),
        st.integers(0, 30),
        st.integers(0, 4_000),
    ),
    max_size=200,
)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=examples(80), deadline=None)
@given(steps=steps)
def test_store__any_steps__keeps_to_its_bounds_and_never_answers_what_is_over(
    policy: str, steps: Any
) -> None:
    clock = Clock()
    store = MemoryStore(20_000, 12, policy, clock=clock)
    model: dict[str, tuple[bytes, float]] = {}
    for verb, number, amount in steps:
        key = f"k{number}"
        if verb == "set":
            payload, ttl_s = b"x" * amount, None if amount % 3 else 1.0 + amount % 7
            store.set(key, payload, ttl_s)
            model[key] = (payload, math.inf if ttl_s is None else clock.now + ttl_s)
        elif verb == "get":
            found = store.get(key)
            if found is not None:
                assert model[key][0] == found
                assert model[key][1] > clock.now
        elif verb == "delete":
            store.delete_many([key])
            model.pop(key, None)
        elif verb == "expire" and store.expire(key, 2.0):
            model[key] = (model[key][0], clock.now + 2.0)
        elif verb == "tick":
            clock.now += amount / 1000
        elif verb in ("versions", "raise"):
            tag = f"t{number}"
            store.raise_versions([tag]) if verb == "raise" else store.versions([tag])
        assert len(store) <= 12
        assert 0 <= store.size_bytes <= 20_000
    store.delete_matching("*")
    clock.now += 100
    for _ in range(30):  # writes sweep what is over
        store.set("last", b"", None)
    assert len(store) == 1
    store.delete_many(["last"])
    assert (len(store), store.size_bytes) == (0, 0)


def test_store__entry_larger_than_all_of_it__is_not_kept_and_the_old_one_is_gone(policy: str) -> None:
    store = MemoryStore(10_000, 100, policy)
    store.set("k", b"small", None)
    store.set("k", b"x" * 20_000, None)
    assert store.get("k") is None
    assert (len(store), store.size_bytes) == (0, 0)


def test_store__too_many__evicts_and_says_so(policy: str) -> None:
    counts, count = counting()
    store = MemoryStore(2**30, 100, policy, count=count)
    for number in range(250):
        store.set(f"k{number}", b"x", None)
    assert len(store) == 100
    assert counts == {"evictions": 150}


def test_lru__read_lately__stays_and_the_oldest_goes() -> None:
    store = MemoryStore(2**30, 3, "lru")
    for key in "abc":
        store.set(key, b"x", None)
    store.get("a")
    store.set("d", b"x", None)
    assert sorted(store.scan("*")) == ["a", "c", "d"]


def test_tinylfu__a_scan_comes_by__what_is_used_often_stays() -> None:
    store = MemoryStore(2**30, 100, "tinylfu")
    often = [f"often{number}" for number in range(60)]
    for _ in range(8):
        for key in often:
            if store.get(key) is None:
                store.set(key, b"x", None)
    for number in range(3_000):
        store.set(f"once{number}", b"x", None)
    kept = sum(store.get(key) is not None for key in often)
    assert kept >= 50
    lru = MemoryStore(2**30, 100, "lru")
    for key in [*often * 8, *(f"once{number}" for number in range(3_000))]:
        lru.set(key, b"x", None)
    assert sum(lru.get(key) is not None for key in often) == 0


# --- ends ------------------------------------------------------------------------------------------------------------
def test_store__end_comes__is_a_miss_and_the_next_write_makes_room(policy: str) -> None:
    clock = Clock()
    counts, count = counting()
    store = MemoryStore(2**30, 100, policy, count=count, clock=clock)
    for number in range(10):
        store.set(f"k{number}", b"x", 5.0)
    clock.now += 4.9
    assert store.get("k0") == b"x"
    assert store.ttl_s("k0") == pytest.approx(0.1)
    clock.now += 2.0
    assert store.get("k0") is None
    assert (store.ttl_s("k0"), list(store.scan("*"))) == (None, [])
    store.set("other", b"x", None)
    assert len(store) == 1
    assert counts == {"expired": 10}
    assert store.ttl_s("other") == math.inf


def test_store__only__asks_what_is_still_there(policy: str) -> None:
    clock = Clock()
    store = MemoryStore(clock=clock, policy=policy)
    assert store.set("k", b"1", 1.0, only=EXISTING) is False
    assert store.set("k", b"1", 1.0, only=NEW) is True
    assert store.set("k", b"2", 1.0, only=NEW) is False
    clock.now += 1.5
    assert store.set("k", b"3", None, only=EXISTING) is False
    assert store.set("k", b"3", None, only=NEW) is True
    assert store.get("k") == b"3"


def test_incr__keeps_the_end_and_refuses_what_is_no_number(policy: str) -> None:
    clock = Clock()
    store = MemoryStore(clock=clock, policy=policy)
    store.set("n", b"41", 10.0)
    assert store.incr("n", 1) == 42
    assert store.ttl_s("n") == pytest.approx(10.0)
    assert store.incr("none", 1) is None
    store.set("t", b"\xc0text", None)
    with pytest.raises(ValueError):
        store.incr("t", 1)


@pytest.mark.parametrize("payload", [b" 1", b"1_0", b"", b"-", b"+1", b"1.0", b"\xc0"])
def test_incr__what_redis_would_not_count__is_no_integer(payload: bytes) -> None:
    store = MemoryStore()
    store.set("k", payload, None)
    with pytest.raises(ValueError):
        store.incr("k", 1)
    assert store.get("k") == payload


def test_incr__below_zero__goes_on() -> None:
    store = MemoryStore()
    store.set("n", b"1", None)
    assert [store.incr("n", -3), store.incr("n", 1), store.get("n")] == [-2, -1, b"-1"]


def test_set__over_at_once__old_one_is_gone_and_nothing_is_kept(policy: str) -> None:
    store = MemoryStore(policy=policy)
    store.set("k", b"old", None)
    assert store.set("k", b"new", 0) is True
    assert store.get("k") is None
    assert (len(store), store.size_bytes) == (0, 0)
    store.set("k", b"old", None)
    assert store.expire("k", -1.0) is True
    assert (len(store), store.expire("k", 5.0)) == (0, False)


def test_pop__there_and_not__gives_it_once() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    store.set("k", b"1", 1.0)
    assert [store.pop("k"), store.pop("k")] == [b"1", None]
    store.set("k", b"1", 1.0)
    clock.now += 2.0
    assert store.pop("k") is None


def test_expired__many_at_once__are_swept_a_few_with_each_write(policy: str) -> None:
    clock = Clock()
    store = MemoryStore(2**30, 1_000, policy, clock=clock)
    for number in range(200):
        store.set(f"k{number}", b"x", 1.0)
    clock.now += 5.0
    store.set("a", b"", None)
    assert 150 < len(store) < 200
    for _ in range(20):
        store.set("a", b"", None)
    assert len(store) == 1


# --- keys ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "pattern", ["*", "?1:*", "p:[^a]*", "p:\\*", "p:[a-c]?", "p:a\\[*", "p:*é", "nothing"]
)
def test_scan__redis_globs__finds_what_valkey_finds(prefix: str, pattern: str) -> None:
    keys = ["p:a", "p:a1", "p:b2", "p:*", "p:a[1]", "p:é", "p:d", "11:x"]
    store, client = MemoryStore(), connections.client()
    for key in keys:
        store.set(prefix + key, b"1", None)
        client.set(prefix + key, b"1")
    try:
        found = {key.decode() for key in client.scan_iter(match=prefix + pattern, count=1_000)}
        assert set(store.scan(prefix + pattern)) == found
        assert store.delete_matching(prefix + pattern) == len(found)
        assert len(store) == len(keys) - len(found)
    finally:
        client.delete(*(prefix + key for key in keys))


# --- versions --------------------------------------------------------------------------------------------------------
def test_versions__clock_stands_still_or_goes_back__never_the_same_number_twice() -> None:
    moment = [1000.0]
    store = MemoryStore(wall=lambda: moment[0])
    (first,) = store.versions(["t"])
    assert first == 1_000_000_000
    assert store.versions(["t"]) == [first]
    store.raise_versions(["t"])
    (second,) = store.versions(["t"])
    moment[0] = 10.0
    store.raise_versions(["t"])
    (third,) = store.versions(["t"])
    store.delete_many(["t"])
    (again,) = store.versions(["t"])
    assert first < second < third < again


def test_versions__evicted_meanwhile__come_back_higher(policy: str) -> None:
    store = MemoryStore(2**20, 4, policy, wall=lambda: 5.0)
    (before,) = store.versions(["t"])
    for number in range(50):
        store.set(f"k{number}", b"x", None)
    store.delete_many(["t"])
    store.raise_versions(["t", "u"])
    after = store.versions(["t", "u"])
    assert min(after) > before
    assert len(set(after)) == 2


# --- threads and forks -----------------------------------------------------------------------------------------------
def test_store__eight_threads_at_once__bounds_hold_and_no_count_is_lost(policy: str) -> None:
    store = MemoryStore(200_000, 50, policy)
    store.set("n", b"0", None)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(400):
                key = f"k{chance.randrange(100)}"
                store.set(key, b"x" * chance.randrange(500), chance.choice([None, 0.001, 5.0]))
                store.get(key)
                store.delete_many([f"k{chance.randrange(100)}"])
                if store.incr("n", 1) is None:
                    store.set("n", b"0", None, only=NEW)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(store) <= 50
    assert store.size_bytes <= 200_000
    store.clear()
    assert (len(store), store.size_bytes) == (0, 0)


def test_set__over_an_old_one__no_reader_finds_nothing(policy: str) -> None:
    store, stop, missed = MemoryStore(2**20, 100, policy), threading.Event(), []
    store.set("k", b"0", 60.0)

    def read() -> None:
        while not stop.is_set():
            if store.get("k") is None:
                missed.append(1)

    reader = threading.Thread(target=read)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # many turns in a short time
    try:
        reader.start()
        for number in range(5_000):
            store.set("k", b"%d" % number, 60.0)
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        reader.join()
    assert missed == []


def test_store__value_comes_back_from_its_del__neither_hangs_nor_breaks(policy: str) -> None:
    store = MemoryStore(2**20, 3, policy)

    class Leaving:
        def __del__(self) -> None:
            store.set("left", b"1", None)
            store.delete_many(["k0"])

    for number in range(20):
        store.set(f"k{number % 5}", Held(Leaving(), None, 100), None)
    store.clear()
    assert len(store) <= 3
    store.delete_matching("*")
    assert (len(store), store.size_bytes) == (0, 0)


def test_fork__while_a_thread_writes__child_goes_on(policy: str) -> None:
    store = MemoryStore(2**20, 100, policy)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for number in range(200):
                store.set(f"k{number}", b"x" * 50, 1.0)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    for number in range(300):
                        store.set(f"c{number}", b"y", None)
                    code = 0 if store.get("c299") == b"y" and len(store) <= 100 else 2
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        thread.join()


# --- references ------------------------------------------------------------------------------------------------------
def test_estimate__values_by_reference__count_by_what_they_hold() -> None:
    small, large = {"a": 1}, {"rows": [{"text": f"{number}" * 20} for number in range(1_000)]}
    assert 100 < estimate_bytes(small) < 1_000
    assert estimate_bytes(large) > 100_000
    store = MemoryStore(50_000, 10)
    assert store.set("large", Held(large, None, estimate_bytes(large)), None) is False
    assert store.get("large") is None
    value = [1]
    value.append(value)  # type: ignore[arg-type]
    assert estimate_bytes(value) > 50
