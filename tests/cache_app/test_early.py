from __future__ import annotations

import math
import random
import statistics

import pytest

from cache_app import early


def never() -> float:
    raise AssertionError("drew without need")


def test_is_due__far_from_its_end__is_not_and_draws_nothing() -> None:
    assert early.is_due(37.0, 1.0, 1.0, never) is False


def test_is_due__past_its_end__always_is() -> None:
    assert early.is_due(0.0, 1.0, 1.0, lambda: 0.0) is True


def test_is_due__beta_of_nothing_or_an_instant_load__is_not_before_the_end() -> None:
    assert early.is_due(0.001, 10.0, 0.0, never) is False
    assert early.is_due(0.001, 0.0, 1.0, never) is False


def test_look_ahead__smallest_draw__is_finite_and_within_reach() -> None:
    furthest = early.look_ahead_s(1.0, math.nextafter(1.0, 0.0))
    assert 36.0 < furthest < early.REACH
    assert early.look_ahead_s(1.0, 0.0) == 0.0


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_look_ahead__many_draws__are_exponential_around_load_time_and_beta(beta: float) -> None:
    draw = random.Random(7).random
    ahead = [early.look_ahead_s(0.2 * beta, draw()) for _ in range(20_000)]
    assert statistics.fmean(ahead) == pytest.approx(0.2 * beta, rel=0.05)
    assert sum(a > 0.2 * beta for a in ahead) / len(ahead) == pytest.approx(math.exp(-1), abs=0.02)


@pytest.mark.parametrize(("left_in_loads", "share"), [(0.5, 0.607), (1.0, 0.368), (3.0, 0.050)])
def test_is_due__share_of_readers__falls_off_with_the_distance(left_in_loads: float, share: float) -> None:
    draw = random.Random(11).random
    due = sum(early.is_due(left_in_loads * 0.2, 0.2, 1.0, draw) for _ in range(20_000))
    assert due / 20_000 == pytest.approx(share, abs=0.015)


def test_is_due__a_thousand_reads_a_second__the_first_refresh_comes_before_the_end() -> None:
    """The point of it: of 200 lives that are read every millisecond, none ends unrefreshed."""
    draw = random.Random(13).random
    for _ in range(200):
        assert any(early.is_due(left_ms / 1000, 0.05, 1.0, draw) for left_ms in range(1000, 0, -1))
