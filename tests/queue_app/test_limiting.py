"""Rates as arithmetic: what may be let go, against what then starts."""

from __future__ import annotations

import random

import pytest

from queue_app import limiting
from queue_app.limiting import Rate


def test_allowed__never_used__is_the_burst_and_then_one_in_each_interval() -> None:
    rate = Rate(10, 1.0, 3)
    used = limiting.used_to(rate, None, 100.0, unstarted=0)
    assert limiting.allowed(rate, used, 100.0) == 3
    used += 3 * rate.interval_s
    assert limiting.allowed(rate, used, 100.0) == 0
    assert limiting.wait_s(rate, used, 100.0) == pytest.approx(0.1)
    assert limiting.allowed(rate, used, 100.1) == 1


def test_capacity__no_burst_given__is_a_tenth_of_a_seconds_worth() -> None:
    assert [Rate(count, period_s).capacity for count, period_s in ((1, 1), (100, 60), (1000, 1))] == [
        1,
        1,
        100,
    ]


def test_used_to__let_go_and_not_started__takes_up_room() -> None:
    rate = Rate(1, 1.0, 5)
    long_ago = 0.0
    assert limiting.allowed(rate, limiting.used_to(rate, long_ago, 100.0, unstarted=5), 100.0) == 0
    assert limiting.allowed(rate, limiting.used_to(rate, long_ago, 100.0, unstarted=2), 100.0) == 3


def test_used_to__by_a_slower_rate__is_no_more_than_the_burst_of_this_one() -> None:
    slow, fast = Rate(10, 3600.0, 10), Rate(1000, 1.0, 20)
    used = limiting.used_to(slow, None, 100.0, unstarted=0) + 10 * slow.interval_s
    assert limiting.allowed(slow, limiting.used_to(slow, used, 101.0, unstarted=0), 101.0) == 0
    now_fast = limiting.used_to(fast, used, 101.0, unstarted=0)
    assert limiting.allowed(fast, now_fast, 101.0) == 0
    assert limiting.wait_s(fast, now_fast, 101.0) == pytest.approx(0.001)
    assert limiting.used_to(fast, used, 101.0, unstarted=30) == pytest.approx(101.03)


@pytest.mark.parametrize("seed", range(20))
def test_rate__workers_that_come_and_go__no_window_has_more_starts_than_it_may(seed: int) -> None:
    """A governor that looks at odd times, and workers that start what was let go when they like."""
    chance = random.Random(seed)
    rate = Rate(chance.randint(1, 20), 1.0, chance.randint(1, 6))
    now, used, unstarted, seen = 0.0, None, 0, 0
    starts: list[float] = []
    for _ in range(400):
        now += chance.choice((0.001, 0.02, 0.3, 2.0))
        started = chance.choice((0, unstarted, chance.randint(0, unstarted)))
        starts += [now - 0.0005] * started
        unstarted -= started
        used = limiting.used_to(rate, used, now, unstarted=seen)
        granted = limiting.allowed(rate, used, now)
        used += granted * rate.interval_s
        unstarted += granted
        seen = unstarted
    assert starts
    for first, begin in enumerate(starts):
        for last in range(first, min(first + 60, len(starts))):
            most = rate.capacity + (starts[last] - begin + 0.001) / rate.interval_s
            assert last - first + 1 <= most + 1e-6


def test_rate__started_at_once__is_used_in_full() -> None:
    rate, now, used, seen, started = Rate(10, 1.0, 1), 0.0, None, 0, 0
    while now < 10.0:
        used = limiting.used_to(rate, used, now, unstarted=seen)
        seen = limiting.allowed(rate, used, now)
        used += seen * rate.interval_s
        started += seen
        now += 0.01
    assert started >= 88


def test_under_way__long_jobs__those_that_run_and_one_more() -> None:
    pace = 0.0
    for _ in range(100):  # four slots, a second each, that all end within a moment
        pace = limiting.paced(pace, 4, 1.0)
        assert limiting.under_way(4, held=1, ended=4, pace=pace) == 5


def test_under_way__short_jobs__as_many_as_end_in_a_moment() -> None:
    pace = 0.0
    for _ in range(200):
        pace = limiting.paced(pace, 20, 0.01)
    assert pace == pytest.approx(2000, rel=0.05)
    assert 90 <= limiting.under_way(4, held=10, ended=20, pace=pace) <= 110


def test_under_way__workers_ran_dry__get_twice_what_they_had() -> None:
    assert limiting.under_way(4, held=0, ended=20, pace=40.0) == 40
    assert limiting.under_way(4, held=1, ended=20, pace=40.0) == 6
