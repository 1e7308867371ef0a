"""The breaker's traces: when it opens, for how long, whom it lets through, and what it says about it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.breaker import CLOSED, HALF_OPEN, OPEN, Breaker
from gateway.policy import Policy


def breaker(random: float = 0.5, **policy: Any) -> Breaker:
    return Breaker(Policy(**policy), lambda: random)


def run(one: Breaker, outcomes: str, now: float, step_s: float = 0.0, latency_s: float = 0.1) -> float:
    """Each `.` a success, `x` a failure, `s` a slow success, one after the other; the time afterwards."""
    for outcome in outcomes:
        if one.allows(now):
            one.admit(now)
            if outcome == "x":
                one.failed(one.epoch, now)
            else:
                one.succeeded(one.epoch, 9.0 if outcome == "s" else latency_s, now)
        now += step_s
    return now


def opened(now: float = 100.0, **policy: Any) -> Breaker:
    one = breaker(**policy)
    run(one, "x" * 20, now)
    assert one.state == OPEN
    return one


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [("x" * 19, CLOSED), ("x" * 20, OPEN), ("." * 11 + "x" * 9, CLOSED), ("." * 10 + "x" * 10, OPEN)],
)
def test_closed__volume_and_ratio__both_are_needed(outcomes: str, state: str) -> None:
    one = breaker()
    run(one, outcomes, 100.0)
    assert one.state == state


def test_closed__good_answers_after_the_failures__no_verdict_on_a_success() -> None:
    one = breaker()
    run(one, "x" * 15 + "." * 5, 100.0)
    assert one.state == CLOSED
    run(one, "x", 100.0)
    assert one.state == OPEN


def test_window__failures_older_than_it__forgotten_bucket_by_bucket() -> None:
    one = breaker()
    run(one, "x" * 19, 100.0)
    run(one, "x", 108.9)
    assert one.state == OPEN
    one = breaker()
    run(one, "x" * 19, 100.0)
    run(one, "x" * 19, 110.0)
    assert one.state == CLOSED
    one = breaker()
    run(one, "x" * 19, 100.0)
    run(one, "x" * 19, 100_000.0)
    assert one.state == CLOSED
    run(one, "x", 100_009.0)
    assert one.state == OPEN


def test_window__steady_traffic__holds_about_its_ten_seconds() -> None:
    one = breaker(breaker_error_ratio=1.0)
    now = run(one, "." * 1000, 100.0, 0.05)
    window = one.calls - one._marks[0][0]
    assert 180 <= window <= 200
    run(one, "x", now)
    assert one.state == CLOSED


def test_closed__slow_calls__open_too_and_say_so() -> None:
    one = breaker(breaker_slow_s=1.0, breaker_slow_ratio=0.5)
    run(one, "." * 10 + "s" * 9, 100.0)
    assert one.state == CLOSED
    run(one, "s", 100.0)
    assert one.state == OPEN
    assert "10 of 20 requests took longer than 1 s" in one.why(100.0)
    patient = breaker()
    run(patient, "s" * 50, 100.0)
    assert patient.state == CLOSED


def test_open__until_its_time__nobody_then_a_budget_of_probes() -> None:
    one = opened()
    assert one.why(103.0) == "open since 3 s: 20 of 20 requests failed; next probe in 2.0 s"
    assert (one.allows(104.9), one.wait_s(104.0)) == (False, 1.0)
    admitted = 0
    for _ in range(10):
        if one.allows(105.0):
            one.admit(105.0)
            admitted += 1
    assert (admitted, one.state) == (3, HALF_OPEN)
    assert one.why(106.0) == "half-open since 1 s: 0 of 3 probes went well, 3 under way"
    assert one.wait_s(106.0) == 4.0


def test_half_open__three_good_probes__closed_with_an_empty_window() -> None:
    one = opened()
    run(one, "..", 105.0)
    assert one.state == HALF_OPEN
    run(one, ".", 105.0)
    assert (one.state, one.why(105.0)) == (CLOSED, "")
    run(one, "x" * 19, 105.0)
    assert one.state == CLOSED


@pytest.mark.parametrize("outcome", ["x", "s"])
def test_half_open__one_bad_probe__open_again_for_longer(outcome: str) -> None:
    one = opened(breaker_slow_s=1.0)
    run(one, f"..{outcome}", 105.0)
    assert (one.state, one.open_until) == (OPEN, 115.0)
    assert "a probe" in one.why(105.0)


def test_open__again_and_again__doubles_up_to_the_most() -> None:
    one, now, spans = opened(), 100.0, []
    for _ in range(6):
        spans.append(one.open_until - now)
        now = one.open_until
        run(one, "x", now)
    assert spans == [5, 10, 20, 40, 60, 60]


def test_open__after_a_quiet_window__starts_over_but_not_while_it_flaps() -> None:
    one = opened()
    run(one, "...", 105.0)
    run(one, "x" * 20, 106.0)
    assert one.open_until - 106.0 == 10.0
    run(one, "...", 116.0)
    run(one, "x" * 20, 130.0)
    assert one.open_until - 130.0 == 5.0


@pytest.mark.parametrize(("random", "open_s"), [(0.0, 4.0), (0.5, 5.0), (0.999999, 6.0)])
def test_open__jitter__twenty_percent_each_way(random: float, open_s: float) -> None:
    one = breaker(random)
    run(one, "x" * 20, 100.0)
    assert one.open_until - 100.0 == pytest.approx(open_s, abs=0.001)


def test_epoch__late_result_of_an_older_state__ignored() -> None:
    one = breaker()
    late = one.epoch
    run(one, "x" * 20, 100.0)
    one.succeeded(late, 0.1, 100.0)
    one.failed(late, 100.0)
    assert one.open_until == 105.0
    one.admit(105.0)
    for _ in range(5):
        one.failed(late, 105.0)
        one.succeeded(late, 0.1, 105.0)
        one.released(late)
    assert (one.state, one.successes, one.probing) == (HALF_OPEN, 0, 1)


def test_half_open__client_gone__no_verdict_and_the_probe_is_free_again() -> None:
    one = opened(breaker_probes=1)
    one.admit(105.0)
    assert not one.allows(105.0)
    one.released(one.epoch)
    assert one.allows(105.0)
    assert (one.state, one.successes) == (HALF_OPEN, 0)
    closed = breaker()
    closed.released(closed.epoch)
    assert closed.probing == 0


def test_half_open__probe_that_never_ends__its_place_is_not_kept_for_ever() -> None:
    one = opened(breaker_probes=1)
    one.admit(105.0)
    assert (one.allows(109.9), one.allows(110.0)) == (False, True)
    one.admit(110.0)
    assert not one.allows(114.9)


def test_follow__new_policy__state_and_counts_stay() -> None:
    one = breaker()
    run(one, "x" * 10, 100.0)
    one.follow(Policy(breaker_volume=11, breaker_buckets=4))
    run(one, "x", 100.0)
    assert one.state == OPEN


@pytest.mark.parametrize(
    "values",
    [
        {"breaker_buckets": 0},
        {"breaker_error_ratio": 1.5},
        {"retry_budget_min": -1},
        {"hash_balance": 0.5},
        {"health_interval_s": float("nan")},
    ],
)
def test_policy__makes_no_sense__value_error_names_it(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        Policy(**values)
