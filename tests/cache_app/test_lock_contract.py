"""What every kind of lock keeps: on Redis, in one process, and in files; from threads and from event loops."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cache_app import LockTimeout
from cache_app.locks import CacheLock, LockLost

from .lock_kinds import KINDS, WAIT_S, Door, Locks, hears, in_queue, queued, stop_polling, until


@pytest.fixture(params=KINDS)
def locks(request: pytest.FixtureRequest, prefix: str, tmp_path: Path) -> Locks:
    return Locks(request.param, prefix, tmp_path / "cache")


@pytest.fixture(params=["threads", "tasks"])
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    made = Door(is_async=request.param == "tasks")
    yield made
    made.close()


@pytest.fixture
def nobody_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_polling(monkeypatch)


def _extended(locks: Locks, door: Door) -> CacheLock:
    """A lock whose short lease was made longer: on a busy machine it may be over by then, but not twenty times."""
    for _ in range(20):
        lock = locks.make(ttl_s=0.25)
        door.acquire(lock)
        try:
            door.extend(lock, 30.0)
        except LockLost:
            continue
        return lock
    raise AssertionError("it cannot be extended")


class TestContract:
    def test_acquire__held__times_out_without_waiting_or_after_wait_s(self, locks: Locks, door: Door) -> None:
        door.acquire(locks.make())
        with pytest.raises(TimeoutError, match="was not free within 0 s"):
            door.acquire(locks.make(wait_s=0))
        with pytest.raises(LockTimeout):
            door.acquire(locks.make(blocking=False))
        began = time.monotonic()
        with pytest.raises(LockTimeout, match=r"0\.05 s"):
            door.acquire(locks.make(wait_s=0.05))
        assert 0.05 <= time.monotonic() - began < WAIT_S
        assert door.try_acquire(locks.make(wait_s=None)) is False

    def test_release__held__the_next_one_gets_it_with_a_higher_fence(self, locks: Locks, door: Door) -> None:
        fences = []
        for _ in range(3):
            lock = locks.make(wait_s=0)
            door.acquire(lock)
            fences.append(lock.fence)
            assert door.release(lock) is True
        assert fences == sorted(set(fences))

    def test_names__different__do_not_wait_for_each_other(self, locks: Locks, door: Door) -> None:
        door.acquire(locks.make("a"))
        door.acquire(locks.make("b", wait_s=0))

    def test_acquire__by_the_holder_again__is_refused(self, locks: Locks, door: Door) -> None:
        lock = locks.make()
        door.acquire(lock)
        with pytest.raises(RuntimeError, match="held by this object already"):
            door.acquire(lock)
        assert door.release(lock) is True
        door.acquire(lock)

    @pytest.mark.parametrize("name", ["release", "extend"])
    def test_call__not_held__is_refused(self, locks: Locks, door: Door, name: str) -> None:
        with pytest.raises(RuntimeError, match="not held"):
            getattr(door, name)(locks.make())

    def test_lease__over__the_next_one_works_and_a_late_release_frees_nothing(
        self, locks: Locks, door: Door
    ) -> None:
        long = locks.make("long")
        door.acquire(long)
        assert (door.owned(long), long.is_lost) == (True, False)
        slow, new = locks.make(ttl_s=0.25), locks.make(wait_s=WAIT_S)
        door.acquire(slow)
        door.acquire(new)  # granted when the lease of `slow` ends, not after a poll
        assert (door.owned(slow), slow.is_lost) == (False, True)
        assert door.release(slow) is False
        assert door.owned(new) is True
        assert new.fence > slow.fence

    def test_block__outlives_the_lease__raises_lock_lost_unless_it_raises_itself(
        self, locks: Locks, door: Door
    ) -> None:
        with pytest.raises(LockLost, match="ended before the work did"):
            door.within(locks.make(ttl_s=0.01), lambda: time.sleep(0.03))

        def fail() -> None:
            time.sleep(0.03)
            raise KeyError

        with pytest.raises(KeyError):
            door.within(locks.make(ttl_s=0.01), fail)

    def test_block__raises__the_lock_is_free(self, locks: Locks, door: Door) -> None:
        with pytest.raises(ZeroDivisionError):
            door.within(locks.make(), lambda: 1 / 0)
        assert door.locked(locks.make()) is False

    def test_extend__held__moves_the_end_and_after_it_raises(self, locks: Locks, door: Door) -> None:
        lock = _extended(locks, door)
        door.sleep(0.3)
        assert (door.owned(lock), lock.is_lost) == (True, False)
        door.extend(lock, 0.01)
        door.sleep(0.03)
        with pytest.raises(LockLost):
            door.extend(lock)
        assert door.release(lock) is False

    def test_renew__a_holder_that_works__keeps_it_until_max_hold_s(self, locks: Locks, door: Door) -> None:
        """A lease that ends because the machine stopped this process, or the server, says nothing: a longer one then."""
        for lease_s in (0.25, 2.0, 8.0):
            lock = locks.make(str(lease_s), ttl_s=lease_s, renew=True, max_hold_s=2.8 * lease_s)
            door.acquire(lock)
            door.sleep(1.6 * lease_s)
            renewed = (door.owned(lock), lock.is_lost) == (True, False)
            door.sleep(1.4 * lease_s)
            assert (door.owned(lock), lock.is_lost) == (False, True)
            assert door.release(lock) is False
            if renewed:
                break
        assert renewed

    def test_renew__freed__is_not_renewed_any_more(self, locks: Locks, door: Door) -> None:
        lock = locks.make(ttl_s=0.03, renew=True)
        door.acquire(lock)
        assert door.release(lock) is True
        door.sleep(0.06)
        assert door.locked(lock) is False

    def test_renew__holder_gone_without_release__the_lease_ends(self, locks: Locks, door: Door) -> None:
        door.acquire(locks.make(ttl_s=0.05, renew=True))
        door.sleep(0.12)
        assert door.try_acquire(locks.make()) is True

    async def test_renew__holders_loop_stuck__the_lease_ends(self, locks: Locks) -> None:
        lock = locks.make(ttl_s=0.2, renew=True)
        await lock.aacquire()
        time.sleep(0.3)
        assert lock.is_lost is True
        new = locks.make(wait_s=0)
        await new.aacquire()
        await asyncio.sleep(0.05)  # the timer that is long due finds that there is nothing to renew
        assert await new.aowned() is True
        assert await lock.arelease() is False

    def test_renew__lost_to_another__is_noticed_and_never_taken_back(self, locks: Locks, door: Door) -> None:
        for _ in range(20):
            lock, thief = locks.make(ttl_s=0.3, renew=True), locks.make(wait_s=0)
            door.acquire(lock)
            if locks.make()._turns.free(lock._token):  # as if the lease had ended on the server alone
                break  # and not here as well, because the machine stood still
        door.acquire(thief)
        door.sleep(0.2)
        assert lock.is_lost is True
        assert door.release(lock) is False
        assert door.owned(thief) is True

    def test_wait__for_ever__ends_with_the_release(self, locks: Locks, door: Door) -> None:
        holder, waiter = locks.make(), locks.make(wait_s=None)
        door.acquire(holder)
        with door.beside(lambda beside: beside.acquire(waiter)):
            until(lambda: queued(holder))
            door.release(holder)
        assert waiter.fence > holder.fence

    def test_release__somebody_waits__it_is_told_at_once(
        self, locks: Locks, door: Door, nobody_polls: None
    ) -> None:
        def wait(beside: Door) -> None:
            lock = locks.make(fifo=False)
            beside.acquire(lock)
            beside.release(lock)

        holder = locks.make()
        door.acquire(holder)
        with door.beside(wait):  # which ends long before anybody would look by himself
            until(lambda: queued(holder) and hears(holder))
            time.sleep(0.1)  # it has looked again, as one does when the subscription stands
            door.release(holder)

    def test_fifo__waiters__are_served_as_they_came_and_nobody_barges(
        self, locks: Locks, door: Door, nobody_polls: None
    ) -> None:
        order: list[int] = []

        def wait(number: int, beside: Door) -> None:
            lock = locks.make(fifo=True)
            beside.acquire(lock)
            order.append(number)
            beside.sleep(0.002)
            beside.release(lock)

        holder = locks.make(fifo=True)
        door.acquire(holder)
        with ExitStack() as stack:
            for number in range(6):
                stack.enter_context(door.beside(lambda beside, number=number: wait(number, beside)))
                until(lambda number=number: in_queue(holder) > number and hears(holder))
            assert door.try_acquire(locks.make(fifo=True)) is False
            door.release(holder)
            assert door.try_acquire(locks.make(fifo=True)) is False
        assert order == list(range(6))

    def test_fifo__the_first_waiter_gives_up__the_next_one_is_told(
        self, locks: Locks, door: Door, nobody_polls: None
    ) -> None:
        def give_up(wait_s: float, beside: Door) -> None:
            with pytest.raises(LockTimeout):
                beside.acquire(locks.make(str(wait_s), fifo=True, wait_s=wait_s))

        for wait_s in (0.1, 2.0, 10.0):  # on a busy machine it may have given up before the second one comes
            holder, second = (locks.make(str(wait_s), fifo=True) for _ in range(2))
            door.acquire(holder)
            with door.beside(lambda beside, wait_s=wait_s: give_up(wait_s, beside)) as first:
                until(lambda first=first, holder=holder: in_queue(holder) == 1 or not first.is_alive())
                with door.beside(lambda beside, second=second: beside.acquire(second)) as other:
                    until(
                        lambda holder=holder: (
                            in_queue(holder) == 2 or in_queue(holder) and not first.is_alive()
                        )
                    )
                    was_behind = in_queue(holder) == 2
                    first.join()
                    until(lambda holder=holder: in_queue(holder) == 1 and hears(holder))
                    assert other.is_alive()
                    door.release(holder)
            assert second.fence
            if was_behind:
                break
        assert was_behind

    def test_many__threads_and_loops__one_at_a_time(self, locks: Locks, door: Door) -> None:
        running, fences = [0], []

        def work(beside: Door) -> None:
            for _ in range(3):
                lock = locks.make(wait_s=60, fifo=False)
                beside.acquire(lock)
                running[0] += 1
                assert running[0] == 1
                time.sleep(0.0005)
                fences.append(lock.fence)
                running[0] -= 1
                assert beside.release(lock) is True

        with ExitStack() as stack:
            for _ in range(10):
                stack.enter_context(door.beside(work))
        assert fences == sorted(set(fences))
        assert len(fences) == 30

    def test_interrupted__while_it_waits__leaves_no_trace(self, locks: Locks) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        def when_it_waits() -> None:
            until(lambda: in_queue(holder))
            time.sleep(0.05)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

        holder = locks.make(fifo=True).acquire()
        before = signal.signal(signal.SIGALRM, interrupt)
        interrupting = threading.Thread(target=when_it_waits)
        interrupting.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                locks.make(fifo=True, wait_s=2 * WAIT_S).acquire()
        finally:
            interrupting.join()
            signal.signal(signal.SIGALRM, before)
        assert queued(holder) == 0
        assert holder.release() is True
        assert locks.make(fifo=True).try_acquire() is True

    async def test_cancelled__while_it_waits__leaves_no_trace(self, locks: Locks) -> None:
        holder = locks.make(fifo=True)
        await holder.aacquire()
        waiter = asyncio.ensure_future(locks.make(fifo=True).aacquire())
        while not queued(holder):
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.03)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert queued(holder) == 0
        assert await holder.arelease() is True
        assert await locks.make(fifo=True).atry_acquire() is True

    @pytest.mark.parametrize("turns_of_the_loop", range(6))
    async def test_cancelled__at_any_moment_of_the_attempt__nothing_stays_held(
        self, locks: Locks, turns_of_the_loop: int
    ) -> None:
        lock = locks.make()
        task = asyncio.ensure_future(lock.aacquire())
        for _ in range(turns_of_the_loop):
            await asyncio.sleep(0)
        if not task.cancel():
            assert await lock.arelease() is True  # it was quicker
        else:
            with pytest.raises(asyncio.CancelledError):
                await task
        async with locks.make(wait_s=WAIT_S):
            pass

    async def test_cancelled__while_it_releases__it_is_free_all_the_same(self, locks: Locks) -> None:
        for turns_of_the_loop in range(4):
            lock = locks.make()
            await lock.aacquire()
            task = asyncio.ensure_future(lock.arelease())
            for _ in range(turns_of_the_loop):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if turns_of_the_loop:  # cancelled before its first step a coroutine does nothing at all
                async with locks.make(wait_s=WAIT_S):
                    pass
            else:
                assert await lock.arelease() is True


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ttl_s": 0}, "ttl_s"),
        ({"wait_s": -1}, "wait_s"),
        ({"ttl_s": float("inf")}, "ttl_s"),
        ({"wait_s": float("nan")}, "wait_s"),
        ({"max_hold_s": 60}, "renew=True"),
        ({"renew": True, "max_hold_s": 5}, "at least ttl_s"),
    ],
)
def test_lock__impossible_options__are_refused(locks: Locks, options: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        locks.make(**options)


@pytest.mark.parametrize("name", ["", "}"])
def test_lock__a_name_that_would_scatter_its_keys__is_refused(tmp_path: Path, name: str) -> None:
    for kind in KINDS:
        with pytest.raises(ValueError, match="name"):
            Locks(kind, "", tmp_path).make(name)
