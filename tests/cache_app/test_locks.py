from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from django.conf import LazySettings
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cache_app import LockTimeout, cache_lock
from cache_app.connections import client, default_url
from cache_app.lock_rules import Ask
from cache_app.lock_rules import Turns as PureTurns
from cache_app.lock_waits import new_token, process_name
from cache_app.locks import CacheLock, LockLost
from cache_app.redis_locks import ATTEMPT, FREE, LEAVE, Listener, RedisTurns
from cache_app.redis_store import RedisStore
from tests import servers
from tests.depth import examples

from .lock_kinds import WAIT_S, hears, in_queue, stop_polling, until


def test_cache_lock__held__others_time_out_with_a_timeout_error(prefix: str) -> None:
    with cache_lock(prefix):
        with pytest.raises(TimeoutError, match="was not free within 0"), cache_lock(prefix, wait_s=0):
            pass
        with pytest.raises(LockTimeout), cache_lock(prefix, wait_s=0.05):
            pass
    with cache_lock(prefix, wait_s=0):
        pass


def test_cache_lock__body_raises__the_lock_is_free_and_the_error_goes_on(prefix: str) -> None:
    with pytest.raises(KeyError), cache_lock(prefix):
        raise KeyError
    with cache_lock(prefix, wait_s=0):
        pass


def test_fence__grants_in_a_row__rises_even_when_redis_forgot(prefix: str) -> None:
    fences = []
    for _ in range(3):
        with cache_lock(prefix) as lock:
            fences.append(lock.fence)
        client().delete(f"{lock._turns.stem}:fence")
    assert fences == sorted(set(fences))


def test_fence__clock_behind_the_last_grant__still_rises(prefix: str) -> None:
    with cache_lock(prefix) as lock:
        pass
    future = lock.fence + 10**12
    client().set(f"{lock._turns.stem}:fence", future)
    with cache_lock(prefix) as again:
        assert again.fence == future + 1


def test_release__expired_owner__does_not_free_the_new_owners_lock(prefix: str) -> None:
    slow = cache_lock(prefix, ttl_s=0.02, wait_s=0).acquire()
    with cache_lock(prefix, wait_s=WAIT_S) as new:  # granted when the lease of `slow` ends
        assert slow.release() is False
        assert new.fence > slow.fence
        with pytest.raises(LockTimeout), cache_lock(prefix, wait_s=0):
            pass


def test_cache_lock__lease_ends_inside_the_block__raises_lock_lost(prefix: str) -> None:
    with pytest.raises(LockLost), cache_lock(prefix, ttl_s=0.01):
        time.sleep(0.03)


def test_cache_lock__lease_ends_and_body_raises__the_bodys_error_wins(prefix: str) -> None:
    with pytest.raises(KeyError), cache_lock(prefix, ttl_s=0.01):
        raise _slow_error()


def test_acquire__twice_by_one_object__is_refused(prefix: str) -> None:
    with cache_lock(prefix) as lock, pytest.raises(RuntimeError, match="held by this object"):
        lock.acquire()


def test_release__not_held__is_refused(prefix: str) -> None:
    with pytest.raises(RuntimeError, match="not held"):
        cache_lock(prefix).release()


@pytest.mark.parametrize(("ttl_s", "wait_s"), [(0, 1), (1, -1)])
def test_cache_lock__impossible_times__are_refused(prefix: str, ttl_s: float, wait_s: float) -> None:
    with pytest.raises(ValueError, match="ttl_s"):
        cache_lock(prefix, ttl_s=ttl_s, wait_s=wait_s)


def test_cache_lock__released_under_a_waiter__wakes_it_without_polling(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_polling(monkeypatch)

    def wait() -> None:
        with cache_lock(prefix):
            pass

    with cache_lock(prefix) as lock:
        waiter = threading.Thread(target=wait, daemon=True)
        waiter.start()
        waiting(lock, 1)
        time.sleep(0.02)  # rung by the listener that began to hear, it has looked again
    waiter.join(WAIT_S)
    assert not waiter.is_alive()


def test_cache_lock__more_waiters_than_connections__all_get_their_turn(prefix: str) -> None:
    running, most = [0], [0]

    def work() -> None:
        with cache_lock(prefix, wait_s=120):
            running[0] += 1
            most[0] = max(most[0], running[0])
            running[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(80)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (running[0], most[0]) == (0, 1)


def _slow_error() -> KeyError:
    time.sleep(0.03)
    return KeyError()


def _bump(name: str, key: str, times: int) -> None:
    for _ in range(times):
        with cache_lock(name, wait_s=120):
            client().set(key, int(client().get(key) or 0) + 1)  # a lost update without the lock
    os._exit(0)


def test_cache_lock__two_processes__no_update_is_lost(prefix: str) -> None:
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_bump, args=(prefix + "lock", prefix + "n", 50)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert client().get(prefix + "n") == b"100"


async def test_cache_lock__fifty_tasks__one_at_a_time_with_rising_fences(prefix: str) -> None:
    fences, running = [], 0

    async def work() -> None:
        nonlocal running
        async with cache_lock(prefix) as lock:
            running += 1
            assert running == 1
            await asyncio.sleep(0)
            fences.append(lock.fence)
            running -= 1

    await asyncio.gather(*(work() for _ in range(50)))
    assert fences == sorted(set(fences))
    assert len(fences) == 50


async def test_cache_lock__waiter_cancelled__leaves_nothing_held(prefix: str) -> None:
    async with cache_lock(prefix):
        waiter = asyncio.ensure_future(cache_lock(prefix).aacquire())
        await asyncio.sleep(0.02)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
    async with cache_lock(prefix, wait_s=WAIT_S):
        pass


# --- on Redis alone --------------------------------------------------------------------------------------------------


def turns_of(prefix: str, name: str = "name", url: str = "") -> RedisTurns:
    return RedisTurns(RedisStore(url or default_url()), prefix, name)


def ask(token: str, *, fifo: bool = True, arrival: float = 0, waits: bool = True) -> Ask:
    return Ask(token, 30.0, fifo, arrival, waits)


def waiting(lock: CacheLock, count: int) -> None:
    """Until so many wait, each of them in its place in the queue, and all can be told."""
    until(lambda: client().zcard(f"{lock._turns.stem}:queue") == count and lock._turns._listener.hears)


def test_cache_lock__two_hundred_waiters__share_one_subscription_and_one_is_told(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[str] = []
    attempt = RedisTurns.attempt

    def counted(self: RedisTurns, ask: Ask) -> object:
        attempts.append(ask.token)
        return attempt(self, ask)

    def quiet() -> int:
        """How many attempts there were when no more came."""
        before = -1
        while before != len(attempts):
            before = len(attempts)
            time.sleep(0.2)
        return before

    stop_polling(monkeypatch)
    monkeypatch.setattr(RedisTurns, "attempt", counted)
    with ExitStack() as stack:
        holder = stack.enter_context(cache_lock(prefix))
        done = threading.Event()

        def wait() -> None:
            with cache_lock(prefix, wait_s=None):
                done.wait()

        threads = [threading.Thread(target=wait) for _ in range(200)]
        for thread in threads:
            thread.start()
        waiting(holder, 200)
        mine = [found for found in client().client_list() if found["name"] == "brain-cache-locks"]
        channel = holder._turns._listener.stem + process_name()
        assert client().pubsub_numsub(channel) == [(channel.encode(), 1)]
        assert len(mine) < 20  # of this test, and of earlier ones whose listener is about to end
        before = quiet()  # each has looked again since there is somebody who tells
    until(lambda: len(attempts) > before)
    assert len(set(attempts[before : quiet()])) < 60  # one was told, with whoever came at that moment
    done.set()
    for thread in threads:
        thread.join()


def test_cache_lock__scripts_forgotten__are_sent_again(prefix: str) -> None:
    with cache_lock(prefix, wait_s=0) as lock:
        client().script_flush()
    client().script_flush()
    lock.acquire()
    client().script_flush()
    lock.extend()
    assert lock.release() is True


def test_cache_lock__freed_while_the_subscription_is_cut__the_waiter_gets_it_when_it_stands_again(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted = threading.Event()

    def wait() -> None:
        with cache_lock(prefix):
            granted.set()

    with cache_lock(prefix) as holder:
        thread = threading.Thread(target=wait)
        thread.start()
        waiting(holder, 1)
        time.sleep(0.05)
        stop_polling(monkeypatch)
        holder.extend()
        holder._turns._listener.waiters.ring_all()  # from now on it does not poll
        time.sleep(0.05)
        for found in client().client_list(_type="pubsub"):
            if found["name"] == "brain-cache-locks":
                client().client_kill_filter(_id=found["id"])
    assert granted.wait(WAIT_S)
    thread.join()


def test_listener__nobody_waits__ends_and_begins_again(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache_app.redis_locks._QUIET_S", 0.02)
    listener = Listener(RedisStore(default_url()), prefix)
    for _ in range(2):
        listener.waiters.enter("token", threading.Event())  # type: ignore[arg-type]
        listener.waiters.ring_all = lambda: None  # type: ignore[method-assign]
        listener.start()
        until(lambda: listener.hears)
        time.sleep(0.1)  # asked whether it lives, several times
        until(lambda: listener.hears)  # an answer that took longer than a moment has begun it anew
        listener.waiters.leave("token")
        until(lambda: listener._thread is None)
        assert not listener.hears


def test_attempt__many_at_one_moment__stand_in_the_order_in_which_they_came(prefix: str) -> None:
    turns = turns_of(prefix)
    turns.attempt(ask(new_token()))
    with client().pipeline(transaction=True) as one_moment:  # for which the server's clock stands still
        for number in range(20):
            keys, *arguments = turns._attempt(ask(f"p:{number}"))
            one_moment.eval(ATTEMPT.text, len(keys), *keys, *arguments)
        assert [before for _, _, _, before in one_moment.execute()] == list(range(20))


def test_leave__told_already__the_turn_goes_to_the_next(prefix: str) -> None:
    turns = turns_of(prefix)
    turns._counts = "0"
    for token in ("a:1", "b:1", "c:1"):
        turns.attempt(ask(token))
    turns.free("a:1")
    assert client().get(f"{turns.stem}:told").startswith(b"b:1 ")
    turns.leave("b:1")
    assert client().get(f"{turns.stem}:told").startswith(b"c:1 ")


def test_leave__attempt_that_arrives_after_it__is_not_granted(prefix: str) -> None:
    turns, token = turns_of(prefix), new_token()
    turns.leave(token)
    assert turns.attempt(ask(token)).fence == 0
    assert turns.owner() == ""
    assert turns.attempt(ask(new_token())).fence


def test_attempt__again_because_the_answer_was_lost__is_the_same_grant(prefix: str) -> None:
    turns, token = turns_of(prefix), new_token()
    first, again = turns.attempt(ask(token)), turns.attempt(ask(token))
    assert first.fence == again.fence > 0
    assert turns.free(token) is True


def test_free__the_first_waiters_process_is_gone__the_next_one_is_next(prefix: str) -> None:
    turns, holder, dead, alive = turns_of(prefix), new_token(), "dead:1", new_token()
    turns.attempt(ask(holder))
    turns.waiters.enter(alive, threading.Event())  # type: ignore[arg-type]
    turns.waiters.ring_all = turns.waiters.ring = lambda *_: True  # type: ignore[method-assign]
    turns.listen()
    until(lambda: turns._listener.hears)
    turns.attempt(ask(dead))
    arrival = turns.attempt(ask(alive)).arrival
    turns.free(holder)
    assert turns.attempt(ask(alive, arrival=arrival)).fence
    turns.waiters.leave(alive)


def test_wake__told_but_silent__loses_its_turn_after_the_grace(prefix: str) -> None:
    turns, holder, silent, next_one = turns_of(prefix), new_token(), "silent:1", new_token()
    turns._counts = "0"  # as in a cluster, where nobody knows how many have heard it
    turns.attempt(ask(holder))
    turns.attempt(ask(silent))
    arrival = turns.attempt(ask(next_one)).arrival
    freed = time.monotonic()
    turns.free(holder)
    early = turns.attempt(ask(next_one, arrival=arrival))
    assert not early.fence or time.monotonic() - freed > 0.5
    time.sleep(0.51)
    assert early.fence or turns.attempt(ask(next_one, arrival=arrival)).fence


@pytest.fixture
def place(tmp_path: Path, settings: LazySettings) -> Iterator[Path]:
    """Where a server of this test's own may listen."""
    with servers.scratch("lock") as folder:
        path = folder / "s"
        default = settings.CACHES["default"] | {"LOCATION": f"unix://{path}?db=0"}
        settings.CACHES = {"default": default}
        yield path


def test_restart__without_data__the_holder_has_lost_it_and_the_fence_rises(place: Path) -> None:
    lock = cache_lock("name")
    with servers.valkey(unix_socket=place, appendonly=False):
        lock.acquire()
    with servers.valkey(unix_socket=place, appendonly=False), cache_lock("name", wait_s=0) as new:
        assert lock.owned() is False
        assert lock.release() is False
        assert new.fence > lock.fence
        assert new.owned()


def test_server__down_at_the_first_attempt__its_error_is_raised_at_once(place: Path) -> None:
    began = time.monotonic()
    with pytest.raises(redis.ConnectionError):
        cache_lock("name", wait_s=300).acquire()
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("is_async", [False, True])
def test_server__dies_under_a_waiter__who_goes_on_trying_until_wait_s(place: Path, is_async: bool) -> None:
    def acquire(wait_s: float) -> CacheLock:
        lock = cache_lock("name", wait_s=wait_s)
        if is_async:
            asyncio.run(_aacquire(lock))
        else:
            lock.acquire()
        return lock

    found: list[object] = []

    def wait(wait_s: float) -> None:
        try:
            found.append(acquire(wait_s).fence)
        except redis.RedisError as error:
            found.append(error)

    for comes_back, wait_s in ((True, 120.0), (False, 2.0)):
        found.clear()
        with servers.valkey(unix_socket=place, appendonly=False):
            holder = cache_lock("name").acquire()
            thread = threading.Thread(target=wait, args=(wait_s,))
            thread.start()
            until(lambda waiters=holder._turns.waiters: len(waiters))
            time.sleep(0.1)
        if comes_back:
            with servers.valkey(unix_socket=place, appendonly=False):
                thread.join()
            assert found[0] > holder.fence
        else:
            thread.join()
            assert isinstance(found[0], redis.ConnectionError)


async def _aacquire(lock: CacheLock) -> None:
    await lock.aacquire()


@pytest.fixture(scope="module")
def cluster() -> Iterator[servers.ValkeyCluster]:
    with servers.valkey_cluster(nodes=3, replicas=0, node_timeout_s=60) as formed:
        yield formed


@pytest.mark.parametrize("fifo", [False, True])
def test_cluster__locks_of_all_slots__are_held_waited_for_and_told(
    cluster: servers.ValkeyCluster,
    settings: LazySettings,
    prefix: str,
    fifo: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.CACHES = {"default": settings.CACHES["default"] | {"LOCATION": cluster.url}}
    stop_polling(monkeypatch)

    def is_handed_over(name: str) -> bool:
        def wait() -> None:
            with cache_lock(name, fifo=fifo):
                pass

        with cache_lock(name, fifo=fifo) as holder:
            thread = threading.Thread(target=wait, daemon=True)
            thread.start()
            until(lambda: in_queue(holder) == 1 and hears(holder))
            time.sleep(0.03)
        thread.join(WAIT_S)
        return not thread.is_alive()

    # Whichever node the waiter listens on.
    assert all(is_handed_over(f"{prefix}{number}") for number in range(6))


async def test_cluster__tasks__one_at_a_time(
    cluster: servers.ValkeyCluster, settings: LazySettings, prefix: str
) -> None:
    settings.CACHES = {"default": settings.CACHES["default"] | {"LOCATION": cluster.url}}
    fences: list[int] = []

    async def work() -> None:
        async with cache_lock(prefix, fifo=True) as lock:
            fences.append(lock.fence)
            await asyncio.sleep(0)

    await asyncio.gather(*(work() for _ in range(20)))
    assert fences == sorted(set(fences))
    assert len(fences) == 20


# --- the rules in Lua and in Python are the same ------------------------------------------------------------------------

TOKENS = ("a:1", "a:2", "b:1", "c:1")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["attempt", "attempt", "wait", "wait", "free", "leave", "extend"]),
        st.integers(0, len(TOKENS) - 1),
        st.booleans(),
    ),
    max_size=25,
)


@pytest.fixture
def no_grace_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the rules the steps are a millisecond apart; on the server as far as the machine has them be."""
    for script in (ATTEMPT, FREE, LEAVE):
        text = script.text.replace("GRACE_US, KEPT_MS = 500000,", "GRACE_US, KEPT_MS = 500000000,")
        assert text != script.text
        monkeypatch.setattr(script, "text", text)
        monkeypatch.setattr(script, "sha", hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


@given(steps=STEPS)
@example(
    steps=[
        ("attempt", 0, False),
        ("wait", 1, True),
        ("free", 0, True),
        ("attempt", 2, False),  # barges
        ("wait", 1, True),  # has come, for nothing
    ]
)
@hypothesis_settings(
    max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rules__any_steps__say_the_same_as_the_scripts(
    own_prefix: str, no_grace_ends: None, steps: list[tuple[str, int, bool]]
) -> None:
    """No lease and no grace ends while it runs; a process is always there to be told."""
    turns, pure, now, fences = turns_of(own_prefix, new_token()), PureTurns(), 0.0, 0
    turns._counts = "0"
    arrivals: dict[str, tuple[float, float]] = {}
    gone: dict[str, int] = {}

    def tell(token: str) -> bool:
        return True

    def fence() -> int:
        nonlocal fences
        fences += 1
        return fences

    for verb, number, fifo in steps:
        now += 0.001
        stem = TOKENS[number]
        token = f"{stem}{gone.get(stem, 0)}"  # one that has left does not come again
        before = arrivals.get(token, (0.0, 0.0))
        if verb in ("attempt", "wait"):
            waits = verb == "wait" or before[0] > 0
            redis_says = turns.attempt(Ask(token, 30.0, fifo, before[0], waits))
            rules_say = pure.attempt(Ask(token, 30.0, fifo, before[1], waits), now, tell, fence)
            assert bool(redis_says.fence) == bool(rules_say.fence)
            assert redis_says.before == rules_say.before
            if waits:
                arrivals[token] = (redis_says.arrival, rules_say.arrival)
        elif verb == "free":
            assert turns.free(token) == pure.free(token, now, tell)
        elif verb == "extend":
            assert turns.extend(token, 30.0) == pure.extend(token, 30.0, now)
        else:
            turns.leave(token)
            pure.leave(token, now, tell)
            gone[stem] = gone.get(stem, 0) + 1
        assert turns.owner() == pure.owner
        told = client().get(f"{turns.stem}:told") or b""
        assert told.partition(b" ")[0].decode() == pure.told
