from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cache_app import flights
from cache_app.flights import ABANDONED, Flight

from .loaders import auntil, followers


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    yield
    assert flights.in_the_air() == 0


def lead(key: str = "k", *, blocking: bool = True) -> Flight:
    flight, leads = flights.board(key, 0.0, blocking=blocking)
    assert leads
    assert flight is not None
    return flight


def follow(key: str = "k", *, blocking: bool = True) -> Flight:
    flight, leads = flights.board(key, 0.0, blocking=blocking)
    assert not leads
    assert flight is not None
    return flight


class Thread(threading.Thread):
    """Keeps what its function returned; joined in time or the test fails."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.function, self.result = function, None
        self.start()

    def run(self) -> None:
        self.result = self.function()

    def done(self) -> Any:
        self.join(60)
        assert not self.is_alive()
        return self.result


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_board__first_leads_and_the_others_get_its_outcome() -> None:
    flight = lead()
    threads = [Thread(lambda: follow().wait(60)) for _ in range(20)]
    until(lambda: followers() == 20)
    flight.end("found")
    assert [thread.done() for thread in threads] == ["found"] * 20


def test_board__after_the_end__a_new_flight() -> None:
    lead().end("found")
    lead().end("found again")


def test_wait__not_in_time__is_none_and_leaves_the_flight() -> None:
    flight = lead()
    assert follow().wait(0.01) is None
    flight.end("late")
    assert flight.wait(0) == "late"


def test_abandon__those_who_wait_board_again_and_one_leads() -> None:
    flight = lead()

    def again() -> bool:
        assert flight.wait(60) is ABANDONED
        with turn:
            other, leads = flights.board("k", 0.0, blocking=True)
            assert other is not None
            if leads:
                led.append(other)
            return leads

    turn, led = threading.Lock(), list[Flight]()
    threads = [Thread(again) for _ in range(10)]
    until(lambda: followers() == 10)
    flight.abandon()
    assert sum(thread.done() for thread in threads) == 1
    led[0].end("found")


async def test_await__tasks_and_threads_of_one_flight__get_one_outcome() -> None:
    flight = lead(blocking=False)
    thread = Thread(lambda: follow().wait(60))
    tasks = [asyncio.ensure_future(follow(blocking=False).await_(60)) for _ in range(50)]
    await auntil(lambda: followers() == 1 and len(flight._awaited) == 1)
    flight.end("found")
    assert await asyncio.gather(*tasks) == ["found"] * 50
    assert await asyncio.to_thread(thread.done) == "found"


def test_await__loops_in_two_threads__share_the_flight() -> None:
    flight = lead()

    async def both() -> list[Any]:
        return await asyncio.gather(*(follow(blocking=False).await_(60) for _ in range(5)))

    threads = [Thread(lambda: asyncio.run(both())) for _ in range(2)]
    until(lambda: len(flight._awaited) == 2)
    flight.end("found")
    assert [thread.done() for thread in threads] == [["found"] * 5] * 2


async def test_await__cancelled__leaves_the_flight_to_the_others() -> None:
    flight = lead(blocking=False)
    first, second = (asyncio.ensure_future(follow(blocking=False).await_(60)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    flight.end("found")
    assert await second == "found"


async def test_await__not_in_time__is_none() -> None:
    flight = lead(blocking=False)
    assert await follow(blocking=False).await_(0.01) is None
    flight.end("late")


def test_end__a_follower_whose_loop_is_closed__does_no_harm() -> None:
    flight = lead()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    waiting = loop.create_task(flight.await_(None))
    loop.run_until_complete(asyncio.sleep(0))
    assert list(flight._awaited) == [loop]
    loop.close()
    flight.end("found")
    assert flight.wait(0) == "found"
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]


def test_board__the_leaders_loop_was_closed__somebody_else_leads() -> None:
    async def leave() -> Flight:
        return lead(blocking=False)

    left = asyncio.run(leave())
    fresh = lead()
    assert fresh is not left
    fresh.end("found")


def test_leader__coroutine_thrown_away__hands_over() -> None:
    flight = lead()

    async def load() -> None:
        try:
            with flight.led():
                await asyncio.Future()
        except BaseException:
            flight.abandon()
            raise

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        coroutine = load()
        coroutine.send(None)
        del coroutine
        gc.collect()

    asyncio.run(main())
    assert flight.wait(0) is ABANDONED


def test_take_over__leader_hangs__one_more_per_patience() -> None:
    flight = lead()
    assert flight.take_over(9.9, 10.0) is False
    assert [flight.take_over(10.0, 10.0) for _ in range(5)] == [True, False, False, False, False]
    assert flight.take_over(20.0, 10.0) is True
    flight.abandon()
    assert flight.outcome is None  # others lead on
    flight.end("second")
    flight.end("first")
    assert flight.wait(0) == "second"
    assert flight.take_over(99.0, 10.0) is False


def test_board__inside_its_own_loader__is_told_to_load_alone() -> None:
    flight = lead()
    with flight.led():
        assert flights.board("k", 0.0, blocking=True) == (None, False)
        with lead("inner").led():
            assert flights.board("k", 0.0, blocking=True) == (None, False)
            follow_inner, _ = flights.board("inner", 0.0, blocking=True)
            assert follow_inner is None
        flights._flights["inner"].end(1)
    other = follow()
    assert other is flight
    flight.end(1)


def test_board__two_leaders_that_would_wait_for_each_other__one_loads_alone() -> None:
    a, b = lead("a"), lead("b")
    waiting = threading.Event()

    def a_needs_b() -> Any:
        with a.led():
            flight = follow("b")
            waiting.set()
            return flight.wait(60)

    thread = Thread(a_needs_b)
    waiting.wait(60)
    until(lambda: a._waits_for == [b])
    with b.led():
        assert flights.board("a", 0.0, blocking=True) == (None, False)
    b.end("b")
    assert thread.done() == "b"
    assert a._waits_for == []
    a.end("a")


async def test_board__sync_call_in_the_leaders_own_loop__is_told_to_load_alone() -> None:
    flight = lead(blocking=False)
    assert flights.board("k", 0.0, blocking=True) == (None, False)
    assert await asyncio.to_thread(lambda: flights.board("k", 0.0, blocking=True)[0]) is flight
    flight.end(1)


def test_apart__work_that_nobody_waits_for__may_wait_for_its_parent() -> None:
    flight = lead()
    with flight.led():
        inherited = contextvars.copy_context()
        apart = flights.apart()
    assert inherited.run(flights.board, "k", 0.0, blocking=True)[0] is None
    assert apart.run(flights.board, "k", 0.0, blocking=True)[0] is flight
    flight.end(1)


def test_fork__child__leads_what_its_parent_leads() -> None:
    flight = lead()
    child = os.fork()
    if child == 0:
        _, leads = flights.board("k", 0.0, blocking=True)
        os._exit(0 if leads else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    flight.end(1)
