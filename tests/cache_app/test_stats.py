from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_app import backends, connections, latencies, slow, stats, stats_store
from cache_app.latencies import BOUNDS_S, Latencies
from cache_app.tallies import Tally, by_alias, summed


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Counts of this test alone; whoever holds others goes on counting on them."""
    monkeypatch.setattr(stats, "_counts", {})
    monkeypatch.setattr(stats, "_namespaces", {})
    monkeypatch.setattr(stats_store, "_shipper", stats_store.Shipper())
    slow.forget()
    yield
    slow.forget()


def in_threads(count: int, work: Any) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- counting --------------------------------------------------------------------------------------------------------


def test_add__many_threads__no_count_is_lost() -> None:
    counted = stats.counts("a", "users")

    def work() -> None:
        for number in range(3_000):
            counted.add("misses")
            counted.add("bytes_read", 10)
            counted.took("get", 0.001 if number % 2 else 0.1)

    in_threads(4, work)
    assert counted.events() == {"misses": 12_000, "bytes_read": 120_000}
    took = counted.operations()["get"]
    assert took.count == 12_000
    assert took.total_s == pytest.approx(606)


def test_add__read_while_it_is_counted__never_falls() -> None:
    counted, looks, over = stats.counts("a"), [], threading.Event()

    def look() -> None:
        while not over.is_set():
            looks.append(counted.events().get("bytes_read", 0))

    looker = threading.Thread(target=look)
    looker.start()
    for _ in range(20_000):
        counted.add("bytes_read", 3)
    over.set()
    looker.join()
    assert looks == sorted(looks)
    assert counted.events() == {"bytes_read": 60_000}


def test_add__unknown_event__is_refused() -> None:
    counted = stats.counts("a")
    for n in (1, 2):
        with pytest.raises(ValueError, match="'hitz' is no event of the cache"):
            counted.add("hitz", n)
    assert counted.events() == {}


def test_add__nothing__makes_nothing() -> None:
    counted = stats.counts("a")
    counted.add("hits_l1", 0)
    assert counted.events() == {}
    assert stats.snapshot() == {}


def test_counts__asked_again__is_the_same_object() -> None:
    assert stats.counts("a", "n") is stats.counts("a", "n")
    assert stats.counts("a", "n") is not stats.counts("b", "n")


def test_counts__too_many_namespaces__are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "MAX_NAMESPACES", 3)
    for number in range(10):
        stats.counts("a", f"n{number}").add("sets")
    stats.counts("a").add("misses")  # what belongs to none always has its place
    stats.counts("b", "n9").add("sets")
    found = stats.snapshot()
    assert found["a"]["n2"] == {"sets": 1}
    assert found["a"][stats.OTHER] == {"sets": 7}
    assert found["a"][""] == {"misses": 1}
    assert found["b"] == {"n9": {"sets": 1}}


def test_snapshot__some_counts__by_alias_and_namespace() -> None:
    stats.counts("b").add("sets")
    stats.counts("a", "users").add("hits_l1", 2)
    stats.counts("a", "silent")
    assert stats.snapshot() == {"a": {"users": {"hits_l1": 2}}, "b": {"": {"sets": 1}}}


def _in_a_child(pipe: Any) -> None:
    before = stats.snapshot()
    stats.counts("a").add("misses")
    pipe.send((before, stats.snapshot(), stats_store._shipper.backlog, stats_store.housekeeper.is_wanted))


def test_counts__forked__start_at_zero_and_can_be_added_to() -> None:
    stats.counts("a").add("misses", 500)
    stats.counts("a").add("hits_l1")
    ours, theirs = multiprocessing.Pipe()
    stats._guard.acquire()  # another thread's, at the moment of the fork
    try:
        child = multiprocessing.get_context("fork").Process(target=_in_a_child, args=(theirs,))
        child.start()
    finally:
        stats._guard.release()
    assert ours.poll(60)
    before, after, backlog, is_wanted = ours.recv()
    child.join()
    assert (before, after, backlog) == ({}, {"a": {"": {"misses": 1}}}, 1)
    assert is_wanted == stats_store.housekeeper.is_wanted
    assert stats.snapshot() == {"a": {"": {"misses": 500, "hits_l1": 1}}}


def test_at_first__first_count_of_a_process__starts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    monkeypatch.setattr(stats, "_beginners", [lambda: started.append(1)])
    monkeypatch.setattr(stats, "_begun", False)
    counted = stats.counts("a")
    assert started == []
    for _ in range(3):
        counted.add("misses")
        counted.took("get", 1)
    assert started == [1]


def test_families__after_counts__as_prometheus_reads_them() -> None:
    stats.counts("a", "users").add("hits_l1", 3)
    for took_s in (0.0001, 0.0001, 0.02, 99):
        stats.counts("a", "users").took("get", took_s)
    stats.counts("a").took("get", 0.02)
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in stats.families()
        for sample in family.samples
    }
    assert samples["brain_cache_hits_l1_total", "a", "users"] == 3
    name = "brain_cache_operation_seconds"
    assert samples[f"{name}_bucket", "a", "get", "0.0001"] == 2
    assert samples[f"{name}_bucket", "a", "get", "0.01"] == 2
    assert samples[f"{name}_bucket", "a", "get", "0.025"] == 4
    assert samples[f"{name}_bucket", "a", "get", "10"] == 4
    assert samples[f"{name}_bucket", "a", "get", "+Inf"] == samples[f"{name}_count", "a", "get"] == 5
    assert samples[f"{name}_sum", "a", "get"] == pytest.approx(99.0402)


def test_families__what_stands_now__is_among_them(settings: Any, tmp_path: Path) -> None:
    files = {"BACKEND": "cache_app.file.FileCache", "LOCATION": str(tmp_path / "c"), "KEY_PREFIX": "f"}
    settings.CACHES = {**settings.CACHES, "files": files}
    backends.backend("files").set("a", "x" * 100)
    backends.backend("default").get("a")
    samples = {
        (sample.name, sample.labels.get("alias")): sample.value
        for family in stats.families()
        for sample in family.samples
    }
    assert samples["brain_cache_held_entries", "files"] == 1
    assert samples["brain_cache_held_bytes", "files"] > 100
    assert samples["brain_cache_breaker_open", "default"] == 0


# --- durations -------------------------------------------------------------------------------------------------------


def test_bounds__of_the_coarse_ones__are_bounds() -> None:
    assert list(BOUNDS_S) == sorted(set(BOUNDS_S))
    assert set(latencies.COARSE_S) <= set(BOUNDS_S)


@settings(deadline=None)
@given(st.lists(st.floats(1.01e-6, 9.9), min_size=1, max_size=50), st.sampled_from([0.5, 0.95, 0.99]))
def test_quantile__any_durations__is_off_by_less_than_a_bucket(durations: list[float], share: float) -> None:
    found = Latencies()
    found.note(durations)
    exact = sorted(durations)[max(0, -int(-len(durations) * share // 1) - 1)]
    told = found.quantile(share)
    assert told is not None
    assert exact / 1.3 <= told <= exact * 1.3


def test_quantile__nothing_and_beyond_the_last_bound__are_told() -> None:
    assert Latencies().quantile(0.5) is None
    assert Latencies().mean_s is None
    found = Latencies()
    found.note([500.0])
    assert found.quantile(0.99) == pytest.approx(10.0)
    assert found.cumulated()[-2:] == [("10", 0), ("+Inf", 1)]


@settings(deadline=None)
@given(st.lists(st.floats(0, 20)), st.lists(st.floats(0, 20)))
def test_add__two_histograms__as_if_counted_in_one(some: list[float], more: list[float]) -> None:
    one, other, both = Latencies(), Latencies(), Latencies()
    one.note(some)
    other.note(more)
    both.note(some + more)
    one.add(other)
    assert one.buckets == both.buckets
    assert one.total_s == pytest.approx(both.total_s)


def test_tally__hits_and_misses__ratios_of_what_there_is() -> None:
    assert Tally().hit_ratio is None
    assert Tally().l1_ratio is None
    found = Tally({"hits_l1": 30, "hits_l2": 10, "misses": 10, "corrupt": 1})
    assert (found.lookups, found.hit_ratio, found.l1_ratio, found.errors) == (50, 0.8, 0.75, 1)
    tallies = {("a", ""): found, ("a", "users"): Tally({"misses": 50}), ("b", ""): Tally({"sets": 1})}
    assert by_alias(tallies)["a"].hit_ratio == 0.4
    assert summed(tallies.values()).of("sets") == 1
    assert summed(tallies.values()).document()["lookups"] == 100


# --- of all processes ------------------------------------------------------------------------------------------------


def other_process() -> Any:
    """Another process: what it counts is brought to the same totals."""
    counts, shipper = stats._counts, stats_store._shipper
    mine, theirs = (dict(counts), shipper), ({}, stats_store.Shipper())

    class Other:
        def __enter__(self) -> None:
            stats._counts, stats_store._shipper = theirs

        def __exit__(self, *_: object) -> None:
            stats._counts, stats_store._shipper = counts, mine[1]

    return Other()


def test_totals__two_processes__are_added_up() -> None:
    stats.counts("a", "users").add("misses", 7)
    stats.counts("a", "users").took("get", 0.003)
    other = other_process()
    with other:
        stats.counts("a", "users").add("misses", 5)
        stats.counts("a").add("sets")
        stats.counts("a", "users").took("get", 0.3)
        assert stats_store.flush()
    found = stats_store.totals()
    assert found.is_shared
    assert found.tallies["a", "users"].events == {"misses": 12}
    assert found.tallies["a", ""].events == {"sets": 1}
    took = found.tallies["a", "users"].operations["get"]
    assert took.count == 2
    assert took.total_s == pytest.approx(0.303)
    stats.counts("a", "users").add("misses")
    assert stats_store.totals().tallies["a", "users"].events == {"misses": 13}
    assert stats_store.of_process()["a", "users"].events == {"misses": 8}


def test_flush__name_that_is_no_text__does_not_keep_the_others_out() -> None:
    stats.counts("a", "\ud800").add("loads")
    stats.counts("a", "b").add("loads", 2)
    assert stats_store.flush() is True
    assert {name: tally.events for (_, name), tally in stats_store.totals().tallies.items()} == {
        "b": {"loads": 2},
        "\\ud800": {"loads": 1},
    }
    assert stats.counts("a", "\ud800").events() == {"loads": 1}


def test_flush__more_rows_than_one_script_takes__all_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats_store, "_ROWS", 3)
    for number in range(10):
        stats.counts("a", f"n{number}").add("sets", number + 1)
    found = stats_store.totals().tallies
    assert {namespace: tally.of("sets") for (_, namespace), tally in found.items()} == {
        f"n{number}": number + 1 for number in range(10)
    }
    assert stats_store.backlog() == 0


def test_flush__redis_gone_for_a_while__is_added_later(settings: Any, redis_down: dict[str, Any]) -> None:
    up = {**settings.CACHES["default"], "LOCATION": settings.REDIS_URL}
    stats.counts("a").add("misses", 3)
    assert not stats_store.flush()
    found = stats_store.totals()
    assert not found.is_shared
    assert found.tallies["a", ""].events == {"misses": 3}
    stats.counts("a").add("misses", 4)
    assert stats_store.backlog() == 7
    assert stats_store.is_failing()
    settings.CACHES = {"default": up}
    assert stats_store.totals().tallies["a", ""].events == {"misses": 7}
    assert (stats_store.backlog(), stats_store.is_failing()) == (0, False)


def test_flush__answer_lost__is_not_added_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    stats.counts("a").add("misses", 3)
    real, lost = stats_store._link(), []

    class Losing:
        def call(self, *command: Any) -> Any:
            real.call(*command)
            lost.append(1)
            raise redis.ConnectionError("the answer is gone")

    monkeypatch.setattr(stats_store, "_link", Losing)
    assert not stats_store.flush()
    monkeypatch.setattr(stats_store, "_link", lambda: real)
    stats.counts("a").add("misses", 2)
    assert stats_store.totals().tallies["a", ""].events == {"misses": 5}
    assert lost == [1]


def test_flush__server_restarted_empty__counts_on_from_what_is_new() -> None:
    stats.counts("a").add("misses", 3)
    assert stats_store.flush()
    connections.client().delete(*(stats_store.key(name) for name in ("epoch", "counts")))
    stats.counts("a").add("misses", 2)
    found = stats_store.totals()
    assert found.tallies["a", ""].events == {"misses": 2}
    assert found.since is not None


def test_flush__more_fields_than_a_hash_may_have__goes_to_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats_store, "MAX_FIELDS", 4)
    for number in range(6):
        stats.counts("a", f"n{number}").add("sets", 2)
    found = stats_store.totals().tallies
    assert sum(tally.of("sets") for tally in found.values()) == 12
    assert found["a", stats.OTHER].of("sets") == 4
    assert len(found) == 5


def test_reset__all_processes__begin_at_zero_and_prometheus_does_not() -> None:
    stats.counts("a").add("misses", 3)
    other = other_process()
    with other:
        stats.counts("a").add("misses", 10)
        assert stats_store.flush()
        stats.counts("a").add("misses", 100)  # not sent when the reset comes
    stats_store.flush()
    began = datetime.now(UTC)
    stats_store.reset()
    assert stats_store.totals().tallies == {}
    since = stats_store.totals().since
    assert since is not None
    assert abs((since - began).total_seconds()) < 60
    with other:
        assert stats_store.flush()
        stats.counts("a").add("misses", 1)
    stats.counts("a").add("misses", 2)
    with other:
        assert stats_store.flush()
    assert stats_store.totals().tallies["a", ""].events == {"misses": 3}
    assert stats.snapshot() == {"a": {"": {"misses": 5}}}


def test_totals__cache_without_redis__are_of_this_process(settings: Any) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    stats.counts("a").add("misses")
    assert not stats_store.is_there()
    found = stats_store.totals()
    assert (found.is_shared, found.tallies["a", ""].events) == (False, {"misses": 1})
    stats_store.reset()
    assert stats_store.totals().tallies["a", ""].events == {}


def test_housekeeper__started__sends_by_itself_and_for_the_last_time_at_the_end(settings: Any) -> None:
    stats.counts("a").add("misses")
    keeper = stats_store.Housekeeper()
    keeper.start()
    keeper.start()
    assert sum(thread.name == "cache-stats" for thread in threading.enumerate()) == 1
    keeper.stop()
    assert stats_store.backlog() == 0
    raw = connections.client().hgetall(stats_store.key("counts"))
    assert raw == {b"a\x00\x00misses": b"1"}
    unwanted = stats_store.Housekeeper()
    unwanted.is_wanted = False
    unwanted.start()
    unwanted.stop()


# --- slow operations -------------------------------------------------------------------------------------------------


def test_seen__slow_and_quick__the_slow_ones_of_all_processes_are_kept(settings: Any) -> None:
    settings.BRAIN = settings.BRAIN | {"CACHE": {"SLOW_MS": 20.0}}
    slow.seen("a", "get", "p:1:quick", 0.019)
    slow.seen("a", "get", "p:1:" + "long" * 500, 0.02)
    slow.seen("a", "set", "p:1:\udcff", 0.5)
    assert [one.operation for one in slow.recent()] == ["set", "get"]
    assert len(slow.recent()[1].key) == slow.LONGEST_KEY
    found = stats_store.slow_operations()
    assert [(one.alias, one.operation, one.took_s) for one in found] == [
        ("a", "set", 0.5),
        ("a", "get", 0.02),
    ]
    slow.forget()  # another process
    slow.seen("b", "get", "p:1:x", 1.0)
    assert [one.alias for one in stats_store.slow_operations()] == ["b", "a", "a"]
    connections.client().lpush(stats_store.key("slow"), b"garbage", b"[1]")
    assert len(stats_store.slow_operations()) == 3


def test_seen__redis_gone__is_told_of_this_process_and_shared_later(
    settings: Any, redis_down: dict[str, Any]
) -> None:
    slow.seen("a", "get", "p:1:x", 99.0)
    assert [one.key for one in stats_store.slow_operations()] == ["p:1:x"]
    settings.CACHES = {"default": {**settings.CACHES["default"], "LOCATION": settings.REDIS_URL}}
    assert [one.key for one in stats_store.slow_operations()] == ["p:1:x"]
    slow.forget()
    assert [one.key for one in stats_store.slow_operations()] == ["p:1:x"]
