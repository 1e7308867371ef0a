from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from cache_app.local_locks import LocalTurns, Room, local_lock
from cache_app.lock_rules import Ask
from cache_app.lock_watchdog import Watchdog
from cache_app.locks import CacheLock

from .lock_kinds import until


class Clock:
    def __init__(self) -> None:
        self.now, self.wall = 100.0, 1_800_000_000_000_000

    def room(self) -> Room:
        return Room(lambda: self.now, lambda: self.wall)


def lock_in(room: Room, name: str = "name", **options: Any) -> CacheLock:
    return CacheLock(name, LocalTurns(room, name), **options)


def test_lease__over_by_the_clock__the_next_one_is_granted_with_a_higher_fence() -> None:
    clock = Clock()
    room = clock.room()
    first = lock_in(room, ttl_s=5).acquire()
    clock.now += 4.9
    assert lock_in(room).try_acquire() is False
    clock.now += 0.1
    second = lock_in(room, wait_s=0).acquire()
    assert (first.release(), second.fence) == (False, first.fence + 1)
    assert second.owned()


def test_fence__wall_clock_steps_back__rises_all_the_same() -> None:
    clock = Clock()
    room = clock.room()
    fences = []
    for _ in range(3):
        with lock_in(room) as lock:
            fences.append(lock.fence)
        clock.wall -= 10**9
    assert fences == [1_800_000_000_000_000 + number for number in range(3)]


def test_room__freed_names__leaves_nothing_behind() -> None:
    clock = Clock()
    room = clock.room()
    for number in range(50):
        with lock_in(room, str(number)):
            pass
    assert room._turns == {}
    for number in range(5000):  # whose holders are gone
        lock_in(room, str(number), ttl_s=1).acquire()
        clock.now += 0.01
    assert len(room._turns) < 2500


def test_wake__a_told_waiter_that_does_not_come__loses_its_turn_after_the_grace() -> None:
    clock = Clock()
    room = clock.room()
    told: list[str] = []
    room.waiters.ring = lambda token: told.append(token) is None  # type: ignore[method-assign]

    def attempt(token: str, arrival: float = 0) -> Any:
        return room.attempt("name", Ask(token, 30.0, True, arrival, True))

    attempt("p:0")
    silent, next_one = attempt("p:1"), attempt("q:2")
    assert (silent.before, next_one.before) == (0, 1)
    room.free("name", "p:0")
    assert told == ["p:1"]
    assert not attempt("q:2", next_one.arrival).fence
    clock.now += 0.5
    assert attempt("q:2", next_one.arrival).fence
    assert not attempt("p:1", silent.arrival).fence
    room.free("name", "q:2")
    assert (told.count("p:1"), told[-1]) == (2, "p:1")  # it has come back


def test_local_lock__two_caches_of_one_memory__share_it_unless_their_prefixes_differ(prefix: str) -> None:
    def lock(location: str, key_prefix: str) -> CacheLock:
        cache: Any = SimpleNamespace(location=location, key_prefix=key_prefix)
        return local_lock(cache, "name")

    lock(prefix, "a").acquire()
    assert lock(prefix, "a").try_acquire() is False
    assert lock(prefix, "b").try_acquire() is True
    assert lock(prefix + "other", "a").try_acquire() is True


def test_waiters__tasks_of_several_loops_and_threads__all_get_their_turn(prefix: str) -> None:
    room, served = Room(), []

    async def task(number: int) -> None:
        async with lock_in(room, fifo=True):
            served.append(number)
            await asyncio.sleep(0)

    async def loop(first: int) -> None:
        await asyncio.gather(*(task(first + number) for number in range(10)))

    def thread(number: int) -> None:
        with lock_in(room, fifo=True):
            served.append(number)

    with lock_in(room, fifo=True):
        threads = [threading.Thread(target=asyncio.run, args=(loop(n * 10),)) for n in range(3)]
        threads += [threading.Thread(target=thread, args=(30 + n,)) for n in range(10)]
        for one in threads:
            one.start()
        until(lambda: len(room.waiters) == 40)
    for one in threads:
        one.join()
    assert sorted(served) == list(range(40))
    assert room._turns == {}


def test_loop_ended_under_a_waiter__its_turn_goes_to_the_next() -> None:
    room = Room()
    holder = lock_in(room, fifo=True).acquire()
    loop = asyncio.new_event_loop()
    coroutine = lock_in(room, fifo=True).aacquire()
    task = loop.create_task(coroutine)
    for _ in range(5):
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert len(room.waiters) == 1
    loop.close()
    holder.release()  # told, but nobody hears it
    with lock_in(room, fifo=True, wait_s=60) as lock:
        assert lock.fence
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine.close()
    assert len(room.waiters) == 0


class Slow:
    """A lock whose first renewal is answered when it has been freed and taken again."""

    def __init__(self) -> None:
        self.asked, self.may_go, self.renewed = threading.Event(), threading.Event(), threading.Event()

    def renew(self) -> float | None:
        if self.asked.is_set():
            self.renewed.set()
            return None
        self.asked.set()
        assert self.may_go.wait(60)
        return None  # its token has gone

    async def arenew(self) -> float | None:
        raise AssertionError


def test_watchdog__freed_and_taken_again_during_a_renewal__the_new_hold_is_renewed() -> None:
    watchdog, lock = Watchdog(), Slow()
    first = watchdog.watch(lock, time.monotonic())
    assert lock.asked.wait(60)
    first.cancel()
    second = watchdog.watch(lock, time.monotonic() + 0.05)
    lock.may_go.set()
    assert lock.renewed.wait(60)
    second.cancel()


def test_watchdog__thread_is_interrupted_on_its_way_to_the_lock__others_are_renewed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watchdog, lock = Watchdog(), Slow()
    lock.may_go.set()

    enter = threading.Condition.__enter__

    def interrupted(condition: threading.Condition) -> bool:
        if (
            condition is not watchdog._changed
        ):  # of the thread that begins: it would hold back the one that waits for it
            return enter(condition)
        condition._lock.acquire()  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Condition, "__enter__", interrupted)
        with contextlib.suppress(KeyboardInterrupt):
            watchdog.watch(Slow(), time.monotonic() + 60)
    watchdog.watch(lock, time.monotonic())
    assert lock.asked.wait(60)
