"""What every kind of cache promises, to threads and to the event loop alike."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cache_app import shared, stats
from cache_app.backend import BrainCache

from .contract import KINDS, Calls, make


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cache(kind: str, own_prefix: str, tmp_path: Path) -> Iterator[BrainCache]:
    made = make(kind, own_prefix, tmp_path / "files")
    made.get("first")  # makes the index, begins the tracking: nothing that a short life has to wait for
    yield made
    shared.close_all()


@pytest.fixture
def calls(cache: BrainCache, half: asyncio.Runner | None) -> Calls:
    return Calls(cache, half)


def other(cache: BrainCache, kind: str, prefix: str, tmp_path: Path, half: Any) -> Calls:
    """Another alias on the same store, with a prefix that begins like the first one's."""
    return Calls(make(kind, prefix, tmp_path / "files"), half)


# --- one key ---------------------------------------------------------------------------------------------------------
VALUES = [None, True, False, 0, -7, 2**62, 1.5, "", "text ✓", [], [1, [2, None]], {"a": {"b": [1.0]}}]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_get__what_was_set__comes_back_with_its_type(calls: Calls, value: Any) -> None:
    assert calls.set("k", value) is True
    found = calls.get("k", "nothing")
    assert found == value
    assert type(found) is type(value)


def test_get__nothing_there__is_the_default_and_a_stored_none_is_not_nothing(calls: Calls) -> None:
    assert calls.get("k") is None
    assert calls.get("k", 5) == 5
    calls.set("k", None)
    assert calls.get("k", 5) is None
    assert calls.has_key("k") is True


def test_set__again__replaces_value_and_life(calls: Calls) -> None:
    calls.set("k", 1, 1)
    calls.set("k", [2], None)
    assert calls.get("k") == [2]
    assert calls.ttl("k") is None


def test_add__there_is_one__is_refused(calls: Calls) -> None:
    assert calls.add("k", [1]) is True
    assert calls.add("k", [2]) is False
    assert calls.get("k") == [1]


def test_add__what_is_there_answers_nobody__takes_its_place(calls: Calls) -> None:
    """Else get_or_set would load with every call until the store lets go of it."""
    calls.set("k", [1], None, tags=["t"])
    calls.invalidate_tags("t")
    assert calls.add("k", [2], 0) is True
    assert calls.get_or_set("k", [3]) == [3]
    assert calls.get("k") == [3]
    assert 250 < calls.ttl("k") <= 300
    assert calls.add("k", [4]) is False


def test_add__refused__is_no_entry_written(calls: Calls, cache: BrainCache) -> None:
    calls.add("k", [1])
    before = cache.counts.events()["sets"]
    assert calls.add("k", [2]) is False
    assert cache.counts.events()["sets"] == before


def test_set__xx__only_replaces(calls: Calls) -> None:
    assert calls.set("k", [1], xx=True) is False
    assert calls.get("k") is None
    calls.set("k", [1])
    assert calls.set("k", [2], xx=True) is True
    assert calls.get("k") == [2]


def test_delete__twice__was_there_once(calls: Calls) -> None:
    calls.set("k", [1])
    assert calls.delete("k") is True
    assert calls.delete("k") is False
    assert calls.has_key("k") is False


def test_version__same_key__is_another_entry(calls: Calls) -> None:
    calls.set("k", [1])
    calls.set("k", [2], version=2)
    assert (calls.get("k"), calls.get("k", version=2), calls.get("k", version=3)) == ([1], [2], None)
    assert calls.incr_version("k", version=2) == 3
    assert (calls.get("k", version=2), calls.get("k", version=3)) == (None, [2])
    assert 250 < calls.ttl("k", version=3) <= 300
    with pytest.raises(ValueError, match="not found"):
        calls.incr_version("none")


# --- lives -----------------------------------------------------------------------------------------------------------
def test_timeout__over__is_a_miss_and_can_be_added_again(calls: Calls) -> None:
    for life_s in (60, 0.05):
        calls.set("k", [1], life_s)
        calls.set("n", 7, life_s)
        if life_s == 60:
            assert (calls.get("k"), calls.get("n")) == ([1], 7)
    time.sleep(0.08)
    assert (calls.get("k"), calls.get("n"), calls.has_key("k")) == (None, None, False)
    assert calls.get_many(["k", "n"]) == {}
    assert calls.add("k", [2]) is True


@pytest.mark.parametrize("timeout", [0, -1])
def test_timeout__nothing_or_less__is_over_at_once(calls: Calls, timeout: int) -> None:
    calls.set("k", [1])
    calls.set("k", [2], timeout)
    assert calls.get("k") is None
    assert calls.set_many({"a": [1]}, timeout) == []
    assert calls.get("a") is None


def test_timeout__not_a_number__is_refused(calls: Calls) -> None:
    for method, arguments in (
        ("set", ("k", [1])),
        ("add", ("k", [1])),
        ("touch", ("k",)),
        ("set_many", ({"k": 1},)),
    ):
        with pytest.raises(ValueError, match="not a number"):
            getattr(calls, method)(*arguments, float("nan"))


def test_ttl__of_each_kind_of_life__says_it(calls: Calls) -> None:
    calls.set("default", [1])
    calls.set("ever", [1], None)
    calls.set("number", 1, 40)
    assert 250 < calls.ttl("default") <= 300
    assert (calls.ttl("ever"), calls.ttl("none")) == (None, 0)
    assert 5 < calls.ttl("number") <= 40


def test_touch__changes_the_life_alone(calls: Calls) -> None:
    # It has to come in time, and on a busy machine it may not; but not twenty times.
    assert any(calls.set("k", [1], 0.3) and calls.touch("k", 50) for _ in range(20))
    assert calls.touch("none", 50) is False
    time.sleep(0.35)
    assert calls.get("k") == [1]
    assert 40 < calls.ttl("k") <= 50
    assert calls.persist("k") is True
    assert calls.ttl("k") is None
    assert calls.expire("k", 0.05) is True
    time.sleep(0.08)
    assert calls.get("k") is None


def test_touch__tag_has_moved_on__there_is_nothing_to_touch(calls: Calls) -> None:
    calls.set("k", [1], 50, tags=["t"])
    assert calls.touch("k", 60) is True
    assert 50 < calls.ttl("k") <= 60
    calls.invalidate_tags("t")
    assert (calls.ttl("k"), calls.touch("k", 60)) == (0, False)


def test_write__slides_and_may_serve_when_stale__is_not_fresh_for_longer(
    calls: Calls, cache: BrainCache
) -> None:
    full = cache.full_key("k")
    calls.write(full, [1], ttl_s=30, keep_s=60, sliding=True)
    assert calls.read(full).is_found
    calls.write(full, [1], ttl_s=0.05, keep_s=60, sliding=True)
    time.sleep(0.08)
    assert not calls.read(full).is_found


def test_sliding__is_read_in_time__lives_on(calls: Calls, cache: BrainCache) -> None:
    calls.set("long", [1], 60, sliding=True)
    assert cache.store.expire(cache.full_key("long"), 25)
    assert calls.get("long") == [1]
    assert 30 < calls.ttl("long") <= 60  # its life began anew
    full = cache.full_key("k")
    # As if it were read all the time: then nothing in the entry itself ends it. In time, or else again.
    assert any(calls.set("k", [1], 0.2, sliding=True) and cache.store.expire(full, 60) for _ in range(20))
    time.sleep(0.25)
    assert calls.get("k") == [1]
    time.sleep(0.25)
    assert calls.get("k") is None


def test_jitter__many_entries__end_apart_and_never_later(calls: Calls) -> None:
    for number in range(20):
        calls.set(f"k{number}", [1], 1000, jitter=0.5)
    lives = [calls.ttl(f"k{number}") for number in range(20)]
    assert len(set(lives)) > 5
    assert all(470 <= life <= 1000 for life in lives)


@pytest.mark.parametrize("wrong", [{"jitter": 0.9}, {"jitter": -0.1}, {"nx": True, "xx": True}])
def test_set__what_cannot_be_meant__is_refused_and_nothing_is_stored(
    calls: Calls, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="jitter|nx"):
        calls.set("k", [1], 10, **wrong)
    assert calls.get("k") is None


# --- counting --------------------------------------------------------------------------------------------------------
def test_incr__keeps_the_life__and_refuses_what_is_no_number(calls: Calls) -> None:
    calls.set("k", 5, 50)
    assert (calls.incr("k"), calls.incr("k", 10), calls.decr("k", 20)) == (6, 16, -4)
    assert calls.get("k") == -4
    assert 10 < calls.ttl("k") <= 50
    with pytest.raises(ValueError, match="not found"):
        calls.incr("none")
    calls.set("text", "x")
    with pytest.raises(ValueError):
        calls.incr("text")


async def test_aincr__a_thousand_at_once__loses_none(kind: str, cache: BrainCache) -> None:
    await cache.aset("k", 0, 50)
    await asyncio.gather(*(cache.aincr("k") for _ in range(200)))
    assert await cache.aget("k") == 200
    assert 10 < (await cache.attl("k") or 0) <= 50


# --- many ------------------------------------------------------------------------------------------------------------
def test_many__set_get_delete__in_one_go(calls: Calls) -> None:
    assert calls.set_many({"a": 1, "b": [2], "c": None}) == []
    assert calls.get_many(["a", "b", "c", "d"]) == {"a": 1, "b": [2], "c": None}
    assert calls.delete_many(["a", "b", "d"]) == 2
    assert calls.get_many(["a", "b", "c"]) == {"c": None}
    assert (calls.get_many([]), calls.set_many({}), calls.delete_many([])) == ({}, [], 0)


def test_set_many__tags_and_sliding__are_obeyed(calls: Calls) -> None:
    assert calls.set_many({"a": 1, "b": [2]}, 60, tags=["t"], jitter=0.5) == []
    assert calls.set_many({"c": [3]}, 60, sliding=True) == []
    assert calls.get_many(["a", "b", "c"]) == {"a": 1, "b": [2], "c": [3]}
    calls.invalidate_tags("t")
    assert calls.get_many(["a", "b", "c"]) == {"c": [3]}


@pytest.mark.parametrize("wrong", [{"ttl": 1}, {"tag": "t"}, {"tags": "text"}], ids=repr)
def test_set__what_it_does_not_know__is_refused_rather_than_forgotten(
    calls: Calls, wrong: dict[str, Any]
) -> None:
    with pytest.raises(TypeError):
        calls.set("k", [1], **wrong)
    with pytest.raises(TypeError):
        calls.set_many({"k": [1]}, **wrong)
    assert calls.get("k") is None


def test_clear__neighbour_with_a_longer_prefix__stays(
    cache: BrainCache, calls: Calls, kind: str, own_prefix: str, tmp_path: Path, half: Any
) -> None:
    neighbour = other(cache, kind, f"{own_prefix}x", tmp_path, half)
    neighbour.set("k", [1])
    calls.set("k", [1])
    calls.set("k", [1], version=2)
    assert calls.clear() is True
    assert (calls.get("k"), calls.get("k", version=2)) == (None, None)
    assert neighbour.get("k") == [1]


def test_delete_pattern__special_characters__means_them(calls: Calls) -> None:
    calls.set_many({"u:1": 1, "u:2": 2, "v:1": 3, "u*": 4})
    assert sorted(calls.keys("u:*")) == ["u:1", "u:2"]
    assert sorted(calls.iter_keys("?:1")) == ["u:1", "v:1"]
    assert calls.delete_pattern("u\\*") == 1
    assert calls.delete_pattern("u:*") == 2
    assert calls.keys() == ["v:1"]


def spelt(key: str, prefix: str, version: Any) -> str:
    return f"{version}|{prefix}|{key}"


def read_back(full: str) -> str:
    return full.split("|", 2)[2]


@pytest.mark.parametrize("kind", ["redis", "memory", "file"])
def test_key_function__its_keys__are_listed_and_removed(own_prefix: str, tmp_path: Path, kind: str) -> None:
    made = make(kind, own_prefix, tmp_path / "files", REVERSE_KEY_FUNCTION=read_back)
    made.key_func, made._is_plain = spelt, False
    made.set_many({"a1": 1, "a2": 2, "b": [3]})
    made.set("b", 4, version=2)
    assert sorted(made.keys("a*")) == ["a1", "a2"]
    assert made.delete_pattern("a*") == 2
    assert made.clear() is True
    assert (made.get("b"), made.get("b", version=2)) == (None, None)
    made.key_func = lambda key, prefix, version: f"{version}|{key}"
    with pytest.raises(ValueError, match="KEY_PREFIX"):
        made.clear()
    shared.close_all()


# --- tags and namespaces ---------------------------------------------------------------------------------------------
def test_tags__one_is_invalidated__its_entries_are_gone_in_every_way_of_reading(calls: Calls) -> None:
    calls.set("a", [1], tags=["red"])
    calls.set("b", [2], tags=["red", "blue"])
    calls.set("c", [3], tags=["blue"])
    assert calls.get_many(["a", "b", "c"]) == {"a": [1], "b": [2], "c": [3]}
    assert calls.invalidate_tags("red") is True
    assert (calls.get("a"), calls.get("b"), calls.get("c")) == (None, None, [3])
    assert calls.get_many(["a", "b", "c"]) == {"c": [3]}
    assert calls.has_key("a") is False
    calls.set("a", [4], tags=["red"])
    assert calls.get("a") == [4]


def test_tags__number_was_evicted__entry_is_gone_and_never_comes_back(
    calls: Calls, cache: BrainCache
) -> None:
    calls.set("a", [1], tags=["red"])
    cache.store.delete_many([cache.tag_key("red")])
    assert calls.get("a") is None
    calls.set("b", [2], tags=["red"])
    assert (calls.get("a"), calls.get("b")) == (None, [2])


def test_namespace__invalidated__is_empty_and_the_rest_stays(
    cache: BrainCache, calls: Calls, half: Any
) -> None:
    users = Calls(cache.namespace("users"), half)
    calls.set("1", ["outside"])
    assert users.set("1", ["inside"]) is True
    assert users.set_many({"2": 2}) == []
    assert (users.get("1"), users.get("2"), calls.get("1")) == (["inside"], 2, ["outside"])
    assert users.get_many(["1", "2", "3"]) == {"1": ["inside"], "2": 2}
    users.invalidate()
    assert (users.get("1"), users.get_many(["1", "2"]), calls.get("1")) == (None, {}, ["outside"])
    users.set("1", [2])
    assert users.get("1") == [2]
    assert users.delete("1") is True
    assert users.get("1", "gone") == "gone"


# --- what loading asks -----------------------------------------------------------------------------------------------
def test_read__written_under_versions__knows_all_about_it(calls: Calls, cache: BrainCache) -> None:
    full = cache.full_key("k")
    first = calls.read(full, ["red"])
    assert (first.is_found, list(first.versions)) == (False, ["red"])
    assert calls.write(full, {"a": [1]}, ttl_s=50.0, keep_s=100.0, load_s=0.25, versions=first.versions) == {
        "a": [1]
    }
    found = calls.read(full, ["red"])
    assert (found.is_found, found.value, found.versions) == (True, {"a": [1]}, first.versions)
    assert found.meta is not None
    assert found.meta.load_s == pytest.approx(0.25)
    assert 45 < (found.meta.expires_at or 0) - found.meta.stored_at <= 50
    calls.invalidate_tags("red")
    again = calls.read(full, ["red"])
    assert again.is_found is False
    assert again.versions["red"] > found.versions["red"]


def test_write__tag_raised_while_it_was_made__is_never_read(calls: Calls, cache: BrainCache) -> None:
    full = cache.full_key("k")
    versions = calls.read(full, ["red"]).versions
    calls.invalidate_tags("red")
    calls.write(full, ["old"], ttl_s=50.0, versions=versions)
    assert calls.read(full, ["red"]).is_found is False
    assert calls.get("k") is None


def test_read__life_is_over_but_kept__is_found_and_get_misses(calls: Calls, cache: BrainCache) -> None:
    full = cache.full_key("k")
    calls.write(full, [1], ttl_s=0.05, keep_s=60.0)
    time.sleep(0.08)
    found = calls.read(full)
    assert (found.is_found, found.value) == (True, [1])
    assert (calls.get("k"), calls.get_many(["k"]), calls.ttl("k")) == (None, {}, 0)


# --- copies, statistics ----------------------------------------------------------------------------------------------
def test_get__caller_changes_what_it_got__others_do_not_see_it(calls: Calls, kind: str) -> None:
    if kind.endswith("references"):
        pytest.skip("it hands out the stored object on purpose")
    calls.set("k", {"a": [1]})
    calls.get("k")["a"].append(2)
    assert calls.get("k") == {"a": [1]}


def test_counts__of_reads_and_writes__add_up(calls: Calls, cache: BrainCache) -> None:
    before = dict(stats.snapshot().get(cache.alias, {}).get("", {}))
    calls.set("k", [1])
    calls.get("k")
    calls.get_many(["k", "none"])
    calls.get("none")
    calls.delete("k")
    after = stats.snapshot()[cache.alias][""]
    grown = Counter(after)
    grown.subtract(before)
    assert (grown["hits_l1"] + grown["hits_l2"], grown["misses"]) == (2, 2)
    assert (grown["sets"], grown["deletes"]) == (1, 1)
    assert grown["bytes_written"] > 0


def test_counts__of_a_namespace__are_its_own_and_not_the_alias_s_as_well(
    calls: Calls, cache: BrainCache, half: Any, own_prefix: str
) -> None:
    users = Calls(cache.namespace(own_prefix), half)
    before = dict(stats.snapshot().get(cache.alias, {}).get("", {}))
    users.set("1", [1])
    users.get("1")
    users.get_many(["1", "2"])
    users.delete("1")
    users.invalidate()
    own, outside = stats.snapshot()[cache.alias][own_prefix], stats.snapshot()[cache.alias].get("", {})
    assert (own["sets"], own["deletes"], own["invalidations"]) == (1, 1, 1)
    assert (own.get("hits_l1", 0) + own.get("hits_l2", 0), own["misses"]) == (2, 1)
    assert outside == before
