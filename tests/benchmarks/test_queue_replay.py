from __future__ import annotations

import pytest

from benchmarks.queue.rates import lag_s, mean_rate
from benchmarks.queue.replay import judge

STEADY = [second + 100.0 for second in range(21) for _ in range(500)]  # 500 at once, each second


def test_mean_rate__in_batches__counts_those_after_the_first_moment() -> None:
    assert mean_rate(STEADY) == pytest.approx(500)
    assert mean_rate([7.0, 7.0]) == 0


def test_lag_s__batch_at_a_time__is_ahead_by_almost_a_batch_and_never_behind() -> None:
    least, most = lag_s(STEADY[::-1], 500)
    assert (least, most) == (pytest.approx(-0.998), pytest.approx(0, abs=1e-9))
    assert lag_s([0.0, 3.0], 1.0) == (0.0, 2.0)


@pytest.mark.parametrize(("stretch", "value", "reached"), [(1.0, 0.0, True), (1.25, 20.0, False)])
def test_judge__slower_than_asked__is_off_by_a_share(stretch: float, value: float, reached: bool) -> None:
    went = [at * stretch for at in STEADY]
    (figure,) = judge(went, [at + 0.5 for at in went])
    assert (figure.value, figure.unit, figure.reached) == (value, "%", reached)
    assert figure.sides["the last was done"] == "0.50 s after it was let go"
