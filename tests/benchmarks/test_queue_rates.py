from __future__ import annotations

import pytest

from benchmarks.queue.rates import jobs_for, pauses_ms, percentile, ramp_for, slope

MS = 1_000_000


def test_slope__steady_middle__ignores_what_comes_before_8_and_after_95_percent() -> None:
    burst = [n * 1_000 for n in range(8)]
    steady = [10 * MS + n * MS for n in range(87)]
    stragglers = [10_000 * MS + n * MS for n in range(5)]
    assert slope([*stragglers, *burst, *steady]) == pytest.approx(1000)


def test_slope__all_at_once__is_a_number() -> None:
    assert slope([5] * 100) > 0


def test_percentile__nearest_rank__is_one_of_the_values() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile([7.0], 0.99)) == (50, 99, 7)


def test_pauses_ms__parts__are_cut_in_the_order_of_running() -> None:
    entered = [*(n * MS for n in range(10)), *(100 * MS + n * 3 * MS for n in range(10))]
    assert pauses_ms(entered[::-1], 0, 2) == [1.0] * 9
    assert pauses_ms(entered, 1, 2) == [3.0] * 9


def test_jobs_for__any_speed__stays_within_bounds() -> None:
    assert [jobs_for(per_s, 2.0) for per_s in (10, 1_000, 1_000_000)] == [300, 2_000, 60_000]


def test_ramp_for__few_jobs__takes_a_share_and_never_more_than_500() -> None:
    assert [ramp_for(count) for count in (100, 1_000, 60_000)] == [25, 250, 500]
