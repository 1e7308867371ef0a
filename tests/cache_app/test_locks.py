from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time

import pytest

from cache_app import LockTimeout, cache_lock
from cache_app.connections import client
from cache_app.locks import LockLost


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
    with cache_lock(prefix, wait_s=1) as new:  # granted when the lease of `slow` ends
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


def test_cache_lock__released_under_a_waiter__wakes_it_without_polling(prefix: str) -> None:
    granted_after_s: list[float] = []
    released_at: list[float] = []

    def wait() -> None:
        with cache_lock(prefix):
            granted_after_s.append(time.monotonic() - released_at[0])

    with cache_lock(prefix) as lock:
        waiter = threading.Thread(target=wait)
        waiter.start()
        while not lock._turns.waiters or not lock._turns._listener.hears:
            time.sleep(0.002)
        time.sleep(0.02)  # rung by the listener that began to hear, it has looked again
        released_at.append(time.monotonic())
    waiter.join()
    assert granted_after_s[0] < 0.5  # a waiter that was not woken looks again after a second


def test_cache_lock__more_waiters_than_connections__all_get_their_turn(prefix: str) -> None:
    running, most = [0], [0]

    def work() -> None:
        with cache_lock(prefix, wait_s=20):
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
        with cache_lock(name, wait_s=30):
            client().set(key, int(client().get(key) or 0) + 1)  # a lost update without the lock
    os._exit(0)


def test_cache_lock__two_processes__no_update_is_lost(prefix: str) -> None:
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_bump, args=(prefix + "lock", prefix + "n", 100)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert client().get(prefix + "n") == b"200"


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
    async with cache_lock(prefix, wait_s=2):
        pass
