from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from cache_app.breaker import CLOSED, HALF_OPEN, OPEN, Breaker


def opened(at: float = 0.0, failures: int = 3, open_s: float = 2.0) -> Breaker:
    breaker = Breaker(failures, open_s)
    for _ in range(failures):
        breaker.failed(at, "TimeoutError: no reply")
    return breaker


def test_breaker__fewer_failures_than_it_takes__stays_closed() -> None:
    breaker = Breaker(3, 2.0)
    assert [breaker.failed(0.0, "x"), breaker.failed(0.0, "x")] == [False, False]
    assert breaker.allows(0.0)
    assert breaker.state(0.0) == CLOSED
    assert breaker.failed(0.0, "x") is True
    assert not breaker.allows(0.0)


def test_breaker__a_success_between__begins_the_count_anew() -> None:
    breaker = Breaker(2, 2.0)
    breaker.failed(0.0, "x")
    breaker.succeeded()
    breaker.failed(0.0, "x")
    assert breaker.state(0.0) == CLOSED
    assert breaker.why(0.0) == ""


def test_breaker__open__lets_nobody_through_until_its_time_is_over() -> None:
    breaker = opened(at=10.0)
    assert [breaker.allows(now) for now in (10.0, 11.0, 11.99)] == [False] * 3
    assert breaker.state(11.99) == OPEN
    assert breaker.state(12.0) == HALF_OPEN


def test_breaker__half_open__one_probe_and_its_success_closes() -> None:
    breaker = opened()
    assert breaker.allows(2.0)
    assert not breaker.allows(2.0)
    breaker.succeeded()
    assert breaker.allows(2.0)
    assert breaker.allows(2.0)
    assert breaker.in_a_row == 0


def test_breaker__probe_fails__is_open_for_the_whole_time_again() -> None:
    breaker = opened()
    assert breaker.allows(2.5)
    assert breaker.failed(3.0, "again") is False  # it was open
    assert not breaker.allows(4.9)
    assert breaker.allows(5.0)


def test_breaker__probe_without_a_verdict__another_one_may_go() -> None:
    breaker = opened()
    assert breaker.allows(2.0)
    breaker.released()
    assert breaker.allows(2.0)


def test_breaker__probe_that_never_comes_back__does_not_keep_its_place_for_ever() -> None:
    breaker = opened()
    assert breaker.allows(2.0)
    assert not breaker.allows(3.9)
    assert breaker.allows(4.0)


def test_why__open__says_what_happened_and_when_it_goes_on() -> None:
    said = opened().why(0.5)
    assert "3 failures in a row" in said
    assert "TimeoutError: no reply" in said
    assert "1.5 s" in said


def test_reset__open_with_a_lock_that_a_lost_thread_holds__is_as_new() -> None:
    breaker = opened()
    breaker._lock.acquire()
    breaker.reset()
    breaker.failed(0.0, "x")
    assert breaker.state(0.0) == CLOSED


def test_allows__fifty_threads_at_half_open__one_is_the_probe() -> None:
    breaker, start = opened(), threading.Barrier(50)
    let_through: list[bool] = []

    def ask() -> None:
        start.wait()
        let_through.append(breaker.allows(2.0))

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert let_through.count(True) == 1


@given(st.lists(st.sampled_from(["fail", "succeed", "wait", "ask"]), max_size=60), st.integers(1, 5))
def test_breaker__any_history__is_open_only_after_failures_in_a_row(steps: list[str], failures: int) -> None:
    breaker, now, in_a_row = Breaker(failures, 1.0), 0.0, 0
    for step in steps:
        if step == "fail":
            breaker.failed(now, "x")
            in_a_row += 1
        elif step == "succeed":
            breaker.succeeded()
            in_a_row = 0
        elif step == "wait":
            now += 0.6
        elif in_a_row < failures:
            assert breaker.allows(now)
        elif breaker.state(now) == OPEN:
            assert not breaker.allows(now)
        assert (breaker.state(now) == CLOSED) == (in_a_row < failures)
