from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
import redis
import uvloop
from django.conf import LazySettings
from redis._parsers.base import BaseParser

from cache_app import connections
from cache_app.breaker import CLOSED, Breaker
from cache_app.codec import Unreadable
from cache_app.last_known import LastKnown
from cache_app.link import Link, Refused
from cache_app.redis_store import INCR, RedisStore, is_misuse
from cache_app.store import EXISTING, NEW, StoreFailed
from tests import servers

from .halves import Both
from .loaders import auntil, until
from .scripted_server import HANG_UP, scripted


@pytest.fixture
def url() -> str:
    return connections.default_url()


@pytest.fixture
def store(url: str) -> RedisStore:
    return RedisStore(url)


@pytest.fixture
def both(store: RedisStore, half: asyncio.Runner | None) -> Both:
    return Both(store, half)


# --- what it keeps -------------------------------------------------------------------------------------------------------


def test_store__a_round_of_everything__keeps_its_word(both: Both, prefix: str) -> None:
    a, b = f"{prefix}a", f"{prefix}b"
    assert both.set(a, b"1", None) is True
    assert both.set(a, b"2", None, only=NEW) is False
    assert both.set(b, b"2", None, only=EXISTING) is False
    both.set_many([(a, b"x", 60.0), (b, b"y", None)])
    assert both.get_many([b, f"{prefix}none", a]) == [b"y", None, b"x"]
    assert 30 < both.ttl_s(a) <= 60
    assert both.ttl_s(b) == math.inf
    assert both.ttl_s(f"{prefix}none") is None
    assert sorted(both.scan(f"{prefix}*")) == [a, b]
    assert both.delete_many([a, f"{prefix}none"]) == 1
    assert both.delete_matching(f"{prefix}*") == 1
    assert both.get(b) is None


def test_expire__for_ever_and_missing__are_told_apart(both: Both, prefix: str) -> None:
    both.set(prefix, b"1", 60.0)
    assert both.expire(prefix, None) is True
    assert both.expire(prefix, None) is True  # PERSIST says 0 here as for a missing key
    assert both.ttl_s(prefix) == math.inf
    assert both.expire(f"{prefix}none", None) is False
    assert both.expire(f"{prefix}none", 1.0) is False


@pytest.mark.parametrize("ttl_s", [0.0001, 1e300, math.inf])
def test_set__life_beyond_what_the_server_takes__is_the_nearest_that_it_does(
    both: Both, prefix: str, ttl_s: float
) -> None:
    assert both.set(prefix, b"1", ttl_s) is True


def test_incr__counter__keeps_its_life_and_missing_is_none(both: Both, prefix: str) -> None:
    both.set(prefix, b"5", 60.0)
    assert both.incr(prefix, -7) == -2
    assert 30 < both.ttl_s(prefix) <= 60
    assert both.incr(f"{prefix}none", 1) is None
    assert both.get(f"{prefix}none") is None


def test_incr__no_integer__is_a_value_error(both: Both, prefix: str) -> None:
    both.set(prefix, b"\xc0[1]", None)
    with pytest.raises(ValueError, match="no integer"):
        both.incr(prefix, 1)
    both.set(prefix, str(2**63 - 1).encode(), None)
    with pytest.raises(ValueError, match="no integer"):
        both.incr(prefix, 1)


def test_incr__after_the_script_was_forgotten__still_counts(both: Both, prefix: str) -> None:
    both.set(prefix, b"1", None)
    assert both.incr(prefix, 1) == 2
    connections.client().script_flush()
    assert both.incr(prefix, 1) == 3
    assert connections.client().script_exists(INCR.sha) == [True]  # the text went over the wire once


def test_versions__missing__are_made_as_the_servers_time_in_microseconds(both: Both, prefix: str) -> None:
    seconds, micros = connections.client().time()
    first = both.versions([f"{prefix}a", f"{prefix}b"])
    assert all(0 <= number - seconds * 10**6 - micros < 60 * 10**6 for number in first)
    assert both.versions([f"{prefix}b", f"{prefix}a"]) == first[::-1]


def test_raise_versions__again_and_again__never_repeats_or_falls(both: Both, prefix: str) -> None:
    key, seen = f"{prefix}t", []
    for _ in range(20):
        both.raise_versions([key])
        seen += both.versions([key])
    assert seen == sorted(set(seen))
    both.set(key, str(seen[-1] + 10**9).encode(), None)  # a server whose clock was ahead
    both.raise_versions([key])
    assert both.versions([key]) == [seen[-1] + 10**9 + 1]


def test_raise_versions__evicted__begins_above_what_it_was(both: Both, prefix: str) -> None:
    both.raise_versions([prefix])
    before = both.versions([prefix])[0]
    both.delete_many([prefix])
    assert both.versions([prefix])[0] > before


def test_versions__a_tag_that_is_asked_for__does_not_expire(both: Both, prefix: str) -> None:
    both.versions([prefix])
    connections.client().pexpire(prefix, 60_000)
    both.versions([prefix])
    assert connections.client().pttl(prefix) > 86_400_000


def test_get__something_that_is_no_value__is_unreadable_and_a_miss_in_get_many(
    both: Both, prefix: str
) -> None:
    connections.client().sadd(prefix, "member")
    with pytest.raises(Unreadable, match="foreign"):
        both.get(prefix)
    assert both.get_many([prefix]) == [None]


def test_scan__thousands_of_keys__are_all_found_and_removed_in_chunks(both: Both, prefix: str) -> None:
    both.set_many([(f"{prefix}{n}", b"1", 60.0) for n in range(2500)])
    assert set(both.scan(f"{prefix}*")) == {f"{prefix}{n}" for n in range(2500)}
    assert both.delete_many([f"{prefix}{n}" for n in range(1200)]) == 1200
    assert both.delete_matching(f"{prefix}*") == 1300


def test_delete_matching__key_that_is_no_text__is_removed_as_well(both: Both, prefix: str) -> None:
    connections.client().set(prefix.encode() + b"\xff\xfe", 1)
    assert list(both.scan(f"{prefix}*")) == [prefix + r"\xff\xfe"]
    assert both.delete_matching(f"{prefix}*") == 1


# --- nothing is sent twice -----------------------------------------------------------------------------------------------


def test_write__connection_dies_under_it__was_sent_once(half: asyncio.Runner | None) -> None:
    with scripted(lambda command: HANG_UP) as server:
        both = Both(RedisStore(server.url, failures=100), half)
        for call in (
            lambda: both.set("k", b"v", None),
            lambda: both.incr("k", 1),
            lambda: both.set_many([("a", b"1", None), ("b", b"2", None)]),
            lambda: both.delete_many(["k"]),
        ):
            server.heard.clear()
            with pytest.raises(StoreFailed) as failed:
                call()
            assert isinstance(failed.value.__cause__, redis.ConnectionError)
            assert len({tuple(command) for command in server.heard}) == len(server.heard)
            assert server.heard[0][0] in (b"SET", b"EVALSHA", b"UNLINK")


def test_read__on_a_connection_that_was_closed_meanwhile__is_asked_once_more(
    half: asyncio.Runner | None,
) -> None:
    times = iter([b"$1\r\n1\r\n", HANG_UP, b"$1\r\n2\r\n"])
    with scripted(lambda command: next(times)) as server:
        both = Both(RedisStore(server.url), half)
        assert both.get("k") == b"1"
        assert both.get("k") == b"2"
        assert [command[0] for command in server.heard] == [b"GET"] * 3
        assert server.connections == 2


def test_read__on_a_new_connection_that_dies__is_not_repeated(half: asyncio.Runner | None) -> None:
    with scripted(lambda command: HANG_UP) as server:
        with pytest.raises(StoreFailed):
            Both(RedisStore(server.url), half).get("k")
        assert len(server.heard) == 1


def test_write__idle_connection_was_killed__uses_a_new_one(both: Both, prefix: str) -> None:
    for _ in range(3):
        both.set(prefix, b"1", None)
        _kill_others()
        assert both.incr(prefix, 1) == 2  # noticed before anything was sent


def _kill_others() -> None:
    with redis.Redis.from_url(connections.default_url()) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    time.sleep(0.02)


def test_pipeline__error_reply__keeps_the_connection(url: str, prefix: str) -> None:
    link = connections.link(url)
    connections.client().sadd(prefix, 1)
    replies = link.pipeline([("GET", prefix), ("SET", f"{prefix}b", "1"), ("GET", f"{prefix}b")])
    assert isinstance(replies[0], redis.ResponseError)
    assert replies[1:] == [b"OK", b"1"]
    assert link.read("GET", f"{prefix}b") == b"1"


# --- connections are bounded ---------------------------------------------------------------------------------------------


def test_link__more_threads_than_connections__wait_their_turn(url: str, prefix: str) -> None:
    store = RedisStore(url, options={"max_connections": 3})
    store.set(prefix, b"0", None)
    threads = [threading.Thread(target=store.incr, args=(prefix, 1)) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get(prefix) == b"60"
    assert len(store.link._made) <= 3


def test_link__none_is_free_in_time__says_so_and_the_breaker_does_not_count_it(url: str) -> None:
    store = RedisStore(url, options={"max_connections": 1, "timeout": 0.05}, failures=1)
    connection = store.link._take()
    with pytest.raises(StoreFailed, match="none of 1 connections"):
        store.get("k")
    store.link._give(connection)
    assert store.get("k") is None


def test_link__thread_is_interrupted_between_command_and_reply__nobody_gets_its_answer(
    url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStore(url, options={"max_connections": 1})
    store.set(f"{prefix}mine", b"mine", None)
    store.set(f"{prefix}yours", b"yours", None)
    connection = store.link._idle[-1][1]

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(connection, "read_response", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.get(f"{prefix}mine")
    monkeypatch.undo()
    assert store.get(f"{prefix}yours") == b"yours"
    assert len(store.link._made) == 1


def test_link__thread_is_interrupted_on_its_way_to_the_lock__others_get_it(
    store: RedisStore, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytecode of Condition.__enter__ can be interrupted when it has the lock; that of a lock's own cannot."""
    store.link.reset()
    enter = threading.Condition.__enter__

    def interrupted(condition: threading.Condition) -> bool:
        if condition is not store.link._free:  # of another thread
            return enter(condition)
        condition._lock.acquire()  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Condition, "__enter__", interrupted)
        with contextlib.suppress(KeyboardInterrupt):
            store.get(prefix)
    assert store.link._guard.acquire(timeout=60)
    store.link._guard.release()


def test_link__connections_that_interrupted_threads_lost__do_not_use_up_the_limit(
    url: str, prefix: str
) -> None:
    store = RedisStore(url, options={"max_connections": 2, "timeout": 0.05})
    for _ in range(10):
        store.link._take()  # and never given back
    assert store.set(prefix, b"1", None) is True


def test_link__connection_that_was_silent_for_long__is_replaced(
    url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStore(url, options={"max_connections": 1, "client_name": prefix.strip(":")})
    store.get("k")
    before = connections.client().client_list()
    monkeypatch.setattr("cache_app.link.IDLE_S", -1.0)
    store.get("k")
    names = [found["id"] for found in before if found["name"] == prefix.strip(":")]
    after = [
        found["id"] for found in connections.client().client_list() if found["name"] == prefix.strip(":")
    ]
    assert len(after) == 1
    assert after != names


async def test_alink__two_hundred_tasks__share_few_connections(url: str, prefix: str) -> None:
    store = RedisStore(url, options={"client_name": prefix.strip(":")})
    await store.aset(prefix, b"0", None)
    await asyncio.gather(*(store.aincr(prefix, 1) for _ in range(200)))
    assert await store.aget(prefix) == b"200"
    known = await connections.aclient().client_list()
    assert sum(found["name"] == prefix.strip(":") for found in known) <= 4


async def test_alink__cancelled_in_the_middle__the_others_get_their_own_replies(
    store: RedisStore, prefix: str
) -> None:
    await store.aset_many([(f"{prefix}{n}", b"%d" % n, 60.0) for n in range(100)])
    tasks = [asyncio.ensure_future(store.aget(f"{prefix}{n}")) for n in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    for number, one in enumerate(found):
        if number % 3:
            assert one == b"%d" % number
        else:
            assert isinstance(one, asyncio.CancelledError)
    assert await store.aget(f"{prefix}7") == b"7"


async def test_alink__loop_was_blocked_longer_than_the_timeout__the_reply_still_counts(
    url: str, prefix: str
) -> None:
    store = RedisStore(url, options={"socket_timeout": 0.5})
    connections.client().set(prefix, b"1")
    await auntil(lambda: _is_set(store))
    task = asyncio.ensure_future(store.aget(prefix))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    time.sleep(0.8)
    assert await task == b"1"


def test_alink__loop_ends__its_connections_are_closed(url: str, prefix: str) -> None:
    store = RedisStore(url, options={"client_name": prefix.strip(":")})
    for _ in range(3):
        asyncio.run(store.aget("k"))
    assert not [one for one in connections.client().client_list() if one["name"] == prefix.strip(":")]


# --- the breaker, on a server that comes and goes ------------------------------------------------------------------------


def test_breaker__server_stops_and_comes_back__store_fails_at_once_and_recovers(
    half: asyncio.Runner | None,
) -> None:
    port = servers.free_port()
    store = RedisStore(f"redis://127.0.0.1:{port}/0", failures=3, open_s=60.0)
    both = Both(store, half)
    with servers.valkey(port=port, appendonly=False):
        both.set("k", b"1", None)
    causes = [_cause(both) for _ in range(5)]
    assert [isinstance(cause, Refused) for cause in causes] == [False] * 3 + [True] * 2
    assert "the breaker of 127.0.0.1" in str(causes[-1])
    with servers.valkey(port=port, appendonly=False):
        store.link.breaker.open_until = time.monotonic()  # its time is over
        assert both.get("k") is None
        assert both.set("k", b"2", None) is True


def _is_set(store: RedisStore) -> bool:
    """With a timeout that a busy machine may not keep."""
    with contextlib.suppress(StoreFailed):
        return store.set("k", b"1", None)
    return False


def _cause(both: Both) -> BaseException | None:
    with pytest.raises(StoreFailed) as failed:
        both.get("k")
    return failed.value.__cause__


def test_breaker__open__a_call_takes_less_than_a_millisecond(half: asyncio.Runner | None) -> None:
    store = RedisStore(f"redis://127.0.0.1:{servers.free_port()}/0", failures=1, open_s=60.0)
    both = Both(store, half)
    _cause(both)
    took = []
    for _ in range(400):
        began = time.perf_counter()
        _cause(both)
        took.append(time.perf_counter() - began)
    assert sorted(took)[len(took) // 2] < 0.001


def test_breaker__frozen_server__opens_after_the_timeouts_and_is_shared_with_the_loop() -> None:
    port = servers.free_port()
    with servers.valkey(port=port, appendonly=False) as url, redis.Redis.from_url(url) as client:
        pid = client.info("server")["process_id"]
        store = RedisStore(url, failures=2, open_s=60.0, options={"socket_timeout": 0.1})
        until(lambda: _is_set(store))
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(2):
                cause = _cause(Both(store, None))
                assert isinstance(cause, redis.TimeoutError)
            assert isinstance(_cause(Both(store, None)), Refused)
            with asyncio.Runner() as runner:
                assert isinstance(_cause(Both(store, runner)), Refused)
        finally:
            os.kill(pid, signal.SIGCONT)


def test_breaker__frozen_server__tasks_get_their_timeout_and_the_loop_goes_on() -> None:
    port = servers.free_port()
    with servers.valkey(port=port, appendonly=False) as url, redis.Redis.from_url(url) as client:
        pid = client.info("server")["process_id"]
        store = RedisStore(url, failures=1, open_s=0.2, options={"socket_timeout": 0.8})

        async def ask() -> list[BaseException | bytes | None]:
            until(lambda: _is_set(store))
            await auntil(lambda: store.link.breaker.state(time.monotonic()) == CLOSED)
            os.kill(pid, signal.SIGSTOP)
            try:
                asked = [asyncio.ensure_future(store.aget("k")) for _ in range(50)]
                ticks = 0
                while not all(task.done() for task in asked):
                    await asyncio.sleep(0.01)
                    ticks += 1
                assert ticks > 5
                return await asyncio.gather(*asked, return_exceptions=True)
            finally:
                os.kill(pid, signal.SIGCONT)

        async def all_of_it() -> None:
            found = await ask()
            causes = [one.__cause__ for one in found if isinstance(one, StoreFailed)]
            assert len(causes) == 50
            assert all(isinstance(cause, redis.TimeoutError) for cause in causes)
            deadline = time.monotonic() + 60
            while await asyncio.gather(store.aget("k"), return_exceptions=True) != [b"1"]:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)

        asyncio.run(all_of_it())


def test_breaker__fifty_tasks_on_a_connection_that_is_lost__are_one_failure() -> None:
    with scripted(lambda command: HANG_UP) as server:
        store = RedisStore(server.url, failures=2, open_s=60.0)

        async def ask() -> None:
            found = await asyncio.gather(
                *(store.aset("k", b"v", None) for _ in range(50)), return_exceptions=True
            )
            assert all(isinstance(one, StoreFailed) for one in found)

        asyncio.run(ask())
        assert store.link.breaker.in_a_row == 1


@pytest.mark.parametrize(
    "reply",
    [
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        b"-MISCONF Errors writing to the AOF file\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-CLUSTERDOWN The cluster is down\r\n",
        b"-MASTERDOWN Link with MASTER is down\r\n",
        b"-NOREPLICAS Not enough good replicas to write.\r\n",
        b"-BUSY Redis is busy running a script.\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"-NOPERM this user has no permissions\r\n",
        b"-MOVED 1 127.0.0.1:1\r\n",
        b"!garbage\r\n",
    ],
)
def test_refusal__whatever_it_is__is_store_failed_with_redis_own_error(
    half: asyncio.Runner | None, reply: bytes
) -> None:
    with scripted(lambda command: reply) as server:
        both = Both(RedisStore(server.url, failures=1000), half)
        for call in (
            lambda: both.set("k", b"v", None),
            lambda: both.get("k"),
            lambda: both.incr("k", 1),
            lambda: both.get_many(["a", "b"]),
            lambda: both.set_many([("a", b"1", None)]),
            lambda: both.delete_many(["k"]),
            lambda: both.expire("k", 1.0),
            lambda: both.ttl_s("k"),
            lambda: both.versions(["k"]),
            lambda: both.raise_versions(["k"]),
            lambda: list(both.scan("*")),
            lambda: both.delete_matching("*"),
            lambda: both.run("SADD", "k", "1"),
        ):
            with pytest.raises(StoreFailed) as failed:
                call()
            assert isinstance(failed.value.__cause__, redis.RedisError)


@pytest.mark.parametrize(
    ("reply", "counts"),
    [(b"-OOM no memory\r\n", False), (b"-READONLY no\r\n", False), (b"-LOADING wait\r\n", True)],
)
def test_breaker__refusal__counts_only_where_nothing_can_be_served(
    half: asyncio.Runner | None, reply: bytes, counts: bool
) -> None:
    with scripted(lambda command: reply) as server:
        store = RedisStore(server.url, failures=1000)
        for _ in range(3):
            with pytest.raises(StoreFailed):
                Both(store, half).set("k", b"v", None)
        assert (store.link.breaker.in_a_row > 0) == counts


def test_read_only__other_primary_behind_the_same_name__is_dialled_anew(half: asyncio.Runner | None) -> None:
    replies = iter([b"-READONLY no\r\n", b"+OK\r\n"])
    with scripted(lambda command: next(replies)) as server:
        both = Both(RedisStore(server.url), half)
        with pytest.raises(StoreFailed):
            both.set("k", b"v", None)
        assert both.set("k", b"v", None) is True
        assert server.connections == 2


def test_replace__is_only_done_while_the_old_one_is_there(both: Both, prefix: str) -> None:
    assert both.replace(prefix, b"old", b"new", 5.0) is False
    both.set(prefix, b"old", None)
    assert both.replace(prefix, b"old", b"new", 60.0) is True
    assert both.replace(prefix, b"old", b"newer", None) is False
    assert both.get(prefix) == b"new"
    assert 0 < both.ttl_s(prefix) <= 60
    assert both.replace(prefix, b"new", b"newer", None) is True
    assert both.ttl_s(prefix) == math.inf


def test_read_only__in_a_pipeline__the_next_one_dials_anew(half: asyncio.Runner | None) -> None:
    """Deleting and invalidating only, a process would never come to the new primary."""
    with scripted(lambda _: b"-READONLY You can't write against a read only replica.\r\n") as server:
        both = Both(RedisStore(server.url), half)
        for step in (lambda: both.delete_many(["a"]), lambda: both.raise_versions(["a"])):
            with pytest.raises(StoreFailed):
                step()
        assert server.connections == 2


def test_is_misuse__errors_about_the_command__and_no_others() -> None:
    as_read = BaseParser.parse_error
    assert is_misuse(as_read("WRONGTYPE Operation against a key"))
    assert is_misuse(as_read("ERR hash value is not an integer"))
    assert is_misuse(as_read("CROSSSLOT Keys in request don't hash to the same slot"))
    assert not is_misuse(as_read("MISCONF no disk"))
    assert not is_misuse(as_read("ERR max number of clients reached"))
    assert not is_misuse(as_read("BUSY Redis is busy running a script"))


# --- forks ---------------------------------------------------------------------------------------------------------------


def test_fork__child_and_parent__use_their_own_connections(store: RedisStore, prefix: str) -> None:
    store.set(prefix, b"0", None)
    child = os.fork()
    if child == 0:
        try:
            for _ in range(50):
                store.incr(prefix, 1)
        finally:
            os._exit(0)
    for _ in range(50):
        store.incr(prefix, 1)
    os.waitpid(child, 0)
    assert store.get(prefix) == b"100"


def test_fork__last_known_values_are_being_changed__child_does_not_wait_for_ever(
    url: str, prefix: str
) -> None:
    known = LastKnown(100_000, 60.0)
    store = RedisStore(url, known=known)
    with known._lock:  # by a thread that the child does not have
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            store.set(prefix, b"child", None)
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert store.get(prefix) == b"child"


def test_fork__breaker_is_open_and_its_lock_taken__child_begins_anew(url: str, prefix: str) -> None:
    store = RedisStore(url, failures=1, open_s=77.0)
    store.set(prefix, b"1", None)
    store.link.breaker.failed(time.monotonic(), "x")
    with store.link.breaker._lock, store.link._free:
        child = os.fork()
        if child == 0:
            answer = 1
            try:
                answer = 0 if store.get(prefix) == b"1" else 2
            finally:
                os._exit(answer)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.link.breaker.reset()


def test_fork__inside_a_loop__child_may_run_its_own(store: RedisStore, prefix: str) -> None:
    async def parent() -> bytes | None:
        await store.aset(prefix, b"1", None)
        child = os.fork()
        if child == 0:
            answer = 1
            try:
                thread = threading.Thread(target=lambda: asyncio.run(store.aset(prefix, b"child", None)))
                thread.start()
                thread.join()
                answer = 0
            finally:
                os._exit(answer)
        await asyncio.sleep(0.2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        return await store.aget(prefix)

    assert asyncio.run(parent()) == b"child"


# --- the last known values -----------------------------------------------------------------------------------------------


def test_last_known__what_went_through_the_store__and_nothing_that_was_removed(
    url: str, half: asyncio.Runner | None, prefix: str
) -> None:
    known = LastKnown(100_000, 60.0)
    store = RedisStore(url, known=known)
    both = Both(store, half)
    a, b, c, d = (f"{prefix}{name}" for name in "abcd")
    connections.client().set(a, "read")
    both.get(a)
    both.set(b, b"written", None)
    both.set_many([(c, b"5", None), (d, b"removed", None)])
    both.incr(c, 2)
    both.delete_many([d])
    assert [store.last_known(key) for key in (a, b, c, d)] == [b"read", b"written", b"7", None]
    connections.client().delete(a)
    both.get_many([a, b])
    assert store.last_known(a) is None
    both.delete_matching(f"{prefix}*")
    assert store.last_known(b) is None


def test_last_known__over_its_bytes_or_age__is_forgotten() -> None:
    now = [0.0]
    known = LastKnown(1000, 10.0, clock=lambda: now[0])
    known.keep("a", b"x" * 300)
    known.keep("b", b"x" * 300)
    known.get("a")
    known.keep("c", b"x" * 300)  # "b" was asked for longest ago
    assert [known.get(key) is not None for key in "abc"] == [False, False, True] or [
        known.get(key) is not None for key in "abc"
    ] == [True, False, False]
    known.keep("huge", b"x" * 2000)
    assert known.get("huge") is None
    known.keep("d", b"1")
    now[0] = 10.1
    assert known.get("d") is None


def test_last_known__without_the_policy__costs_nothing(store: RedisStore, prefix: str) -> None:
    store.set(prefix, b"1", None)
    assert store.last_known(prefix) is None


def test_link__refused__nothing_is_taken_from_the_pool() -> None:
    breaker = Breaker(1, 60.0)
    breaker.failed(time.monotonic(), "x")
    link = Link("nowhere", lambda: pytest.fail("dialled"), breaker, limit=1, wait_s=0.0)
    link.breaker = breaker
    breaker.failed(time.monotonic(), "x")
    with pytest.raises(Refused):
        link.call("GET", "k")


def test_conf__limits_of_the_site__hold_for_the_links(settings: LazySettings, prefix: str) -> None:
    settings.BRAIN = settings.BRAIN | {"CACHE": {"MAX_CONNECTIONS": 2, "POOL_WAIT_S": 0.07}}
    link = connections.link(f"redis://127.0.0.1:1/0?client_name={prefix.strip(':')}")
    assert (link._limit, link._wait_s) == (2, 0.07)


# --- what it is dialled through ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that speaks TLS only; its certificate is in the URL."""
    try:
        binary = servers.binary("redis-server")
    except servers.Missing as missing:
        if os.environ.get("CI"):
            pytest.fail(f"{missing} is not installed, and CI is set: a missing service is a failure there")
        pytest.skip(f"{missing} is not installed")
    home, port = tmp_path_factory.mktemp("tls"), servers.free_port()
    key, certificate = home / "key.pem", home / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=cache"]
    make += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True)
    command = [binary, "--port", "0", "--tls-port", str(port), "--save", "", "--dir", str(home)]
    command += ["--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    command += ["--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no"]
    with servers.running(command, servers.answers(port), log=home / "log"):
        yield f"valkeys://127.0.0.1:{port}/0?ssl_ca_certs={certificate}"


@pytest.mark.service
def test_tls__both_halves__many_calls_on_one_connection(
    tls: str, half: asyncio.Runner | None, prefix: str
) -> None:
    both = Both(RedisStore(f"{tls}&client_name={prefix.strip(':')}"), half)
    big = os.urandom(300_000)
    for _ in range(20):
        assert both.set(prefix, big, 60.0) is True
        assert both.get(prefix) == big
    assert both.get_many([prefix] * 3) == [big] * 3
    known = connections.client(tls).client_list()
    assert sum(one["name"] == prefix.strip(":") for one in known) == 1
    connections.client(tls).connection_pool.disconnect()


@pytest.mark.service
def test_tls__certificate_that_nobody_vouches_for__is_store_failed(
    tls: str, half: asyncio.Runner | None
) -> None:
    with pytest.raises(StoreFailed) as failed:
        Both(RedisStore(tls.partition("?")[0]), half).get("k")
    assert isinstance(failed.value.__cause__, redis.ConnectionError)


def test_alink__on_uvloop__is_the_same(url: str, prefix: str) -> None:
    store = RedisStore(url)

    async def ask() -> None:
        await store.aset_many([(f"{prefix}{n}", b"%d" % n, 60.0) for n in range(100)])
        found = await asyncio.gather(*(store.aget(f"{prefix}{n}") for n in range(100)))
        assert found == [b"%d" % n for n in range(100)]
        _kill_others()
        await asyncio.gather(*(store.aget(f"{prefix}{n}") for n in range(100)))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask())


def test_large_value__of_megabytes__comes_back_whole(both: Both, prefix: str) -> None:
    big = os.urandom(1_500_000)
    assert both.set(prefix, big, 60.0) is True
    assert both.get(prefix) == big
    assert both.get_many([prefix, prefix]) == [big, big]


async def test_alink__value_of_megabytes_under_way__does_not_stop_the_loop(
    store: RedisStore, prefix: str
) -> None:
    await store.aset(prefix, os.urandom(6_000_000), 60.0)
    late: list[float] = []

    async def tick() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.001)
            late.append(time.monotonic() - began)

    for _ in range(20):  # a busy machine may stop this process for most of the time that one of them takes
        late.clear()
        ticking = asyncio.ensure_future(tick())
        began = time.monotonic()
        await store.aget(prefix)
        took_s = time.monotonic() - began
        ticking.cancel()
        if late and max(late) < 0.75 * took_s:  # a loop that was stopped ticks once, and as late as the value
            break
    else:
        pytest.fail("the loop stood still while the value came")
