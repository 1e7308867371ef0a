from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cache_app import shared
from cache_app.connections import default_url
from cache_app.l1 import L1
from cache_app.tiered import TieredCache

from . import races, tracked
from .test_tiered import settle
from .tracked import until


@pytest.fixture
def cache(own_prefix: str) -> Iterator[TieredCache]:
    made = TieredCache(default_url(), {"KEY_PREFIX": own_prefix, "OPTIONS": {"TRACKER_PING_S": 2.0}})
    made.get("wake up")
    until(lambda: made.store.tracker.is_live)
    yield made
    shared.close_all()


def forked(body: Callable[[], str]) -> str:
    """What the body says in a child of this process; whatever happens there, it does not come back into the tests."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, body().encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        said = told.read()
    os.waitpid(child, 0)
    return said


# --- forks ---------------------------------------------------------------------------------------------------------------
def test_fork__after_use__child_begins_empty_gets_its_own_line_and_the_parent_keeps_its_own(
    cache: TieredCache,
) -> None:
    cache.set("a", [1], tags=["red"])
    settle(cache, "a")
    full = cache.full_key("a")

    def in_child() -> str:
        empty = cache.store.near(full) is None
        assert cache.get("a") == [1]
        until(lambda: cache.store.tracker.is_live)
        settle(cache, "a")
        cache.set("a", [2], tags=["red"])
        assert cache.get("a") == [2]
        settle(cache, "a")
        return f"{empty} {cache.counts.events()['hits_l1'] > 0}"

    losses = cache.counts.events().get("tracker_losses", 0)
    assert forked(in_child) == "True True"
    until(lambda: cache.get("a") == [2])
    settle(cache, "a")
    assert cache.counts.events().get("tracker_losses", 0) == losses


def test_fork__child_of_a_child_and_many_at_once__each_sees_what_the_others_write(cache: TieredCache) -> None:
    cache.set("a", [0])
    settle(cache, "a")

    def in_child() -> str:
        cache.get("a")
        until(lambda: cache.store.tracker.is_live)
        settle(cache, "a")
        grandchild = forked(lambda: str(cache.set("a", [7])))
        until(lambda: cache.get("a") == [7])
        return grandchild

    assert forked(in_child) == "True"
    until(lambda: cache.get("a") == [7])


def test_fork__while_other_threads_write__child_never_hangs(cache: TieredCache) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            cache.set("a", [number])
            cache.get("a")

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            assert forked(lambda: str(type(cache.get("a")))) == "<class 'list'>"
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# --- the end of a process ------------------------------------------------------------------------------------------------
_USES_AND_ENDS = """
import django, sys, threading, time
django.setup()
from cache_app.tiered import TieredCache
cache = TieredCache(sys.argv[1], {"KEY_PREFIX": sys.argv[2]})
cache.set("a", [1])
until = time.monotonic() + 60
while not cache.store.tracker.is_live:
    cache.get("a")
    assert time.monotonic() < until
print(cache.get("a"))
"""


@pytest.mark.slow
def test_exit__with_the_tracker_running__is_quick_and_quiet(own_prefix: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", _USES_AND_ENDS, default_url(), own_prefix],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert (ended.returncode, ended.stdout) == (0, "[1]\n")
    said = [line for line in ended.stderr.splitlines() if "cache_tracker_live" not in line]
    assert said == []


# --- races ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", tracked.MAKES)
def test_staleness__writer_in_another_process__reader_sees_it_within_fifty_milliseconds(make: str) -> None:
    with tracked.server(make) as url:
        for _ in range(10):  # none of the three processes can be quick while the machine has them wait
            behind = races.staleness(100, url)
            if (behind[49] < 0.005, behind[97] < 0.05) == (True, True):
                break
    assert behind[49] < 0.005
    assert behind[97] < 0.05


def run_undisturbed(*arguments: Any, **options: Any) -> races.Result:
    """A server that a busy machine stops between its reply to the writer and what it has to tell the others makes them
    read what is over, and nothing here could change that: such a run says nothing."""
    for _ in range(10):
        result = races.run(*arguments, TRACKER_PING_S=20.0, **options)
        if result.stale == 0 or result.pause_s < races.GRACE_S / 2:
            break
    return result


@pytest.mark.parametrize(
    ("make", "options"),
    [("valkey", {}), ("redis", {"COPY": False})],
    ids=["valkey-copies", "redis-references"],
)
def test_race__four_processes_on_hot_keys__no_read_is_stale(make: str, options: dict[str, Any]) -> None:
    with tracked.server(make) as url:
        result = run_undisturbed(20_000, 4, url, **options)
    assert result.stale == 0, result
    assert result.near > 1000
    assert result.reads + result.writes == 20_000
    assert result.losses == 0


def test_race__while_tracking_connections_are_cut__no_read_is_stale() -> None:
    with tracked.server("valkey") as url:
        result = run_undisturbed(4_000, 2, url, cut_every_s=0.1)
    assert result.stale == 0, result
    assert result.losses > 0


def test_race__memory_that_nobody_tells_anything__is_found_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test. The processes are forked: what is broken here is broken there."""
    monkeypatch.setattr(L1, "drop", lambda self, keys: None)
    with tracked.server("valkey") as url:
        result = races.run(4_000, 2, url)
    assert result.stale > 0
    assert result.worst_s > 0
