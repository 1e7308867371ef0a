"""A service over its targets: taking and settling, ejection, health, panic, slow start and the retry budget."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any

import pytest

from gateway import health, outlier, retry
from gateway.balancer import STRATEGIES
from gateway.breaker import CLOSED, HALF_OPEN, OPEN
from gateway.health import HEALTHY, UNHEALTHY, UNKNOWN, Health
from gateway.policy import Policy
from gateway.pool import DRAINING, FAILED, NO_VERDICT, OK, Service, Target


def service(count: int = 3, strategy: str = "round_robin", hash_on: str = "", **policy: Any) -> Service:
    of = [Target("s", "abcdefghij"[i]) for i in range(count)]
    dice = random.Random(5).random
    return Service("s", of, strategy, random=dice, policy=Policy(**policy), hash_on=hash_on)


def visit(one: Service, now: float, outcomes: dict[str, str] | None = None, key: bytes | None = None) -> str:
    """One request; its outcome by the target's name (default OK). The target's name, "-" for none."""
    target = one.take(now, key, ())
    if target is None:
        return "-"
    one.settle(target, target.breaker.epoch, (outcomes or {}).get(target.name, OK), 0.01, now)
    return target.name


def visits(one: Service, count: int, now: float, outcomes: dict[str, str] | None = None) -> str:
    return "".join(visit(one, now, outcomes) for _ in range(count))


def get_unhealthy(target: Target, now: float = 100.0) -> None:
    before = target.health.state
    for _ in range(target.policy.unhealthy_after):
        target.health.observe("connection refused", 0.0, 0.0, target.policy)
    target.probed(before, proof=False, now=now)


def get_healthy(target: Target, now: float) -> None:
    for _ in range(target.policy.healthy_after):
        before = target.health.state
        target.health.observe("", 0.0, 0.0, target.policy)
        target.probed(before, proof=True, now=now)


# --- take and settle
# ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("outcome", [OK, FAILED, NO_VERDICT])
def test_settle__any_outcome__gives_back_what_take_counted(strategy: str, outcome: str) -> None:
    one = service(3, strategy)
    taken = []
    for i in range(300):
        target = one.take(100.0 + i * 0.01, b"key%d" % i, ())
        if target is not None:
            taken.append((target, target.breaker.epoch))
    assert sum(target.inflight for target in one.targets) == len(taken) == 300
    for target, epoch in taken:
        one.settle(target, epoch, outcome, 0.01, 104.0)
    assert [target.inflight for target in one.targets] == [0, 0, 0]


def test_take__nothing_wrong__nothing_left_to_ask() -> None:
    one = service(3)
    assert visits(one, 6, 100.0) == "abcabc"
    assert not any(target.blocked for target in one.targets)
    assert one.panicked == 0


def test_take__tried_ones__not_again() -> None:
    one = service(3)
    a, b, c = one.targets
    assert one.take(100.0, None, (a, b)) is c
    assert one.take(100.0, None, (a, b, c)) is None


def test_take__draining_or_without_weight__gets_nothing() -> None:
    one = service(3)
    visits(one, 3, 100.0)
    one.targets[0].state = DRAINING
    assert Counter(visits(one, 30, 100.0)) == {"b": 15, "c": 15}
    assert one.targets[0].why(100.0) == "draining"
    weightless = Service("s", [Target("s", "a", 0), Target("s", "b")], random=random.random)
    assert visits(weightless, 3, 100.0) == "bbb"
    with pytest.raises(ValueError, match="paused"):
        one.targets[0].state = "paused"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_take__no_targets__none_and_a_time_to_come_back(strategy: str) -> None:
    one = Service("s", (), strategy, random=random.random)
    assert one.take(100.0, b"k", ()) is None
    assert one.wait_s(100.0) == one.policy.health_interval_s


def test_service__unknown_strategy_or_key__value_error() -> None:
    with pytest.raises(ValueError, match="fastest"):
        Service("s", (), "fastest", random=random.random)
    for hash_on in ("header:", "query:x", "header", "ips"):
        with pytest.raises(ValueError, match="hash_on|ip"):
            service(hash_on=hash_on)
    assert service(hash_on="cookie:session").hash_on == "cookie:session"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_take__one_breaker_open__the_others_serve_and_probes_bring_it_back(strategy: str) -> None:
    one = service(3, strategy, outlier_failures=0, slow_start_s=0.0)
    a = one.targets[0]
    for _ in range(20):
        a.inflight += 1
        one.settle(a, a.breaker.epoch, FAILED, 0.01, 100.0)
    assert (a.breaker.state, a.blocked) == (OPEN, True)
    assert "a" not in {visit(one, 101.0, key=b"%d" % i) for i in range(100)}
    served = Counter(visit(one, 110.0 + i * 0.01, key=b"%d" % i) for i in range(600))
    assert (a.breaker.state, a.blocked) == (CLOSED, False)
    assert served["a"] > 50


def test_take__half_open__no_more_than_the_probe_budget() -> None:
    one = service(1, outlier_failures=0, breaker_probes=2)
    visits(one, 20, 100.0, {"a": FAILED})
    assert (visit(one, 101.0), one.wait_s(101.0)) == ("-", one.targets[0].breaker.open_until - 101.0)
    taken = [one.take(107.0, None, ()) for _ in range(5)]
    assert [target is not None for target in taken] == [True, True, False, False, False]
    (a,) = one.targets
    assert a.breaker.state == HALF_OPEN
    one.settle(a, a.breaker.epoch, NO_VERDICT, 0.0, 107.0)
    assert one.take(107.0, None, ()) is a
    one.settle(a, a.breaker.epoch, FAILED, 0.0, 107.0)
    assert (a.breaker.state, a.inflight) == (OPEN, 1)


def test_settle__late_failures_of_an_older_epoch__count_for_nothing() -> None:
    one = service(2, outlier_failures=50)
    old = [one.take(100.0, None, ()) for _ in range(80)]
    for target in old:
        assert target is not None
        one.settle(target, 0, FAILED, 0.01, 100.0)
    assert [target.breaker.epoch for target in one.targets] == [1, 1]
    assert [target.failures for target in one.targets] == [20, 20]  # the twenty that opened it


def test_settle__late_success_of_an_older_epoch__not_in_the_new_window() -> None:
    one = service(1, slow_start_s=0.0)
    late = one.take(100.0, None, ())
    assert late is not None
    visits(one, 20, 100.0, {"a": FAILED})
    visits(one, 3, 107.0)
    assert (late.breaker.state, late.breaker.epoch) == (CLOSED, 3)
    calls = late.breaker.calls
    one.settle(late, 0, OK, 7.0, 107.0)
    assert (late.breaker.calls, late.inflight) == (calls, 0)


def test_settle__slow_answers__open_the_breaker_and_get_none_of_it_while_half_open() -> None:
    one = service(1, breaker_slow_s=0.005)
    visits(one, 20, 100.0)
    (a,) = one.targets
    assert a.why(100.0).startswith("open since 0 s: 20 of 20 requests took longer than 0.005 s")
    assert visit(one, 107.0) == "a"
    assert a.breaker.state == OPEN


def test_settle__latency__up_at_once_and_down_slowly() -> None:
    one = service(1, "peak_ewma")
    (a,) = one.targets
    for now, latency_s in ((100.0, 0.01), (100.1, 1.0), (105.0, 0.01)):
        one.take(now, None, ())
        one.settle(a, a.breaker.epoch, OK, latency_s, now)
        if latency_s == 1.0:
            assert a.ewma_s == 1.0
    assert 0.5 < a.ewma_s < 0.7
    one.take(200.0, None, ())
    one.settle(a, a.breaker.epoch, FAILED, 0.0001, 200.0)
    assert a.ewma_s == 1.0  # who fails fast is not the fastest


# --- ejection
# ---------------------------------------------------------------------------------------------------------


def test_ejection__five_in_a_row__out_for_longer_each_time() -> None:
    one = service(3, slow_start_s=0.0)
    a = one.targets[0]
    visits(one, 12, 100.0, {"a": FAILED})
    assert a.ejected_until == 0.0
    visits(one, 3, 100.0, {"a": FAILED})
    assert a.ejected_until == 130.0
    assert a.why(110.0) == "ejected for failures in a row, for 20 s more"
    assert "a" not in visits(one, 30, 129.9)
    visits(one, 15, 131.0, {"a": FAILED})
    assert a.ejected_until == 131.0 + 60.0
    assert "for the 2. time" in a.why(140.0)
    assert Counter(visits(one, 6, 500.0)) == {"a": 2, "b": 2, "c": 2}


def test_ejection__a_success_in_between__starts_counting_again() -> None:
    one = service(2)
    for outcome in (FAILED, FAILED, FAILED, FAILED, OK) * 3:
        visits(one, 2, 100.0, {"a": outcome})
    assert one.targets[0].ejected_until == 0.0


@pytest.mark.parametrize(("count", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (10, 5)])
def test_ejection__all_fail__half_of_them_at_most_and_never_the_last(count: int, most: int) -> None:
    one = service(count, breaker_volume=10_000)
    everyone = dict.fromkeys("abcdefghij", FAILED)
    visits(one, 400, 100.0, everyone)
    assert sum(target.ejected_until > 100.0 for target in one.targets) == most
    assert "-" not in visits(one, 50, 100.0, everyone)


def test_ejection__the_only_other_one_has_an_open_breaker__not_ejected() -> None:
    one = service(2, outlier_max_percent=100)
    a, b = one.targets
    get_unhealthy(b)
    visits(one, 8, 100.0, {"a": FAILED})
    assert a.ejected_until == 0.0
    assert one.panicked == 0


def test_outlier__times_and_percent__as_the_policy_says() -> None:
    policy = Policy()
    assert [outlier.ejection_s(times, policy) for times in (1, 2, 10, 11)] == [30, 60, 300, 300]
    assert [outlier.unproven_s(times, policy) for times in (1, 2, 3, 12)] == [0, 30, 60, 300]
    assert [outlier.remembered(3, calm_s, policy) for calm_s in (0.0, 29.0, 61.0, 1e9)] == [3, 3, 1, 0]
    assert outlier.may_eject(0, 1, 2, Policy(outlier_max_percent=0))
    assert not outlier.may_eject(0, 0, 5, policy)


def test_probed__proof__ends_the_ejection_with_a_slow_start() -> None:
    one = service(2)
    a = one.targets[0]
    visits(one, 10, 100.0, {"a": FAILED})
    assert a.ejected_until > 100.0
    a.probed(UNKNOWN, proof=False, now=101.0)
    assert a.ejected_until == 130.0
    a.probed(UNKNOWN, proof=True, now=101.0)
    assert a.why(103.0) == "slow start 20 %"


def test_ejection__good_probes_and_bad_answers__tried_ever_more_seldom() -> None:
    """Back after five seconds each time, it would spoil as many requests as ever."""
    one = service(2, slow_start_s=0.0, breaker_volume=10_000)
    a, out_at = one.targets[0], []
    for second in range(1200):
        now, before = 1000.0 + second, a.ejected_until
        if second % 5 == 0:
            a.probed(HEALTHY, proof=True, now=now)
            before = a.ejected_until
        visits(one, 10, now, {"a": FAILED})
        if a.ejected_until > before:
            out_at.append(second)
    pauses = [after - before for before, after in itertools.pairwise(out_at)]
    assert pauses[:6] == [5, 30, 60, 90, 120, 150]


def test_ejection__well_for_long_after_a_good_probe__the_next_one_is_believed_again() -> None:
    one = service(2)
    a = one.targets[0]
    for now in (100.0, 300.0):
        visits(one, 10, now, {"a": FAILED})
        assert a.ejected_until == now + 30.0
        a.probed(HEALTHY, proof=True, now=now + 1)
        assert a.ejected_until == now + 1
        visits(one, 10, now + 2)


# --- health
# -----------------------------------------------------------------------------------------------------------


def test_health__thresholds__both_ways() -> None:
    one, policy = Health(), Policy(healthy_after=2, unhealthy_after=3)
    states = []
    for fault in ("", "no", "no", "no", "", "no", "", ""):
        one.observe(fault, 7.0, 12.0, policy)
        states.append(one.state)
    assert states == [HEALTHY] * 3 + [UNHEALTHY] * 4 + [HEALTHY]
    assert (one.checked_at, one.next_at, one.reason) == (7.0, 12.0, "")
    new = Health()
    assert [new.observe("no", 0.0, 0.0, policy) for _ in range(4)] == [False, False, True, False]


def test_health__pause__jittered_around_the_interval() -> None:
    policy = Policy(health_interval_s=10.0)
    assert [health.pause_s(policy, lambda r=r: r) for r in (0.0, 0.5)] == [9.0, 10.0]  # type: ignore[misc]


def test_statuses__text__ranges_or_value_error() -> None:
    assert health.statuses("200-299, 304") == (range(200, 300), range(304, 305))
    for text in ("", "abc", "300-200", "99", "200-600", "200,"):
        with pytest.raises(ValueError):
            health.statuses(text)


def test_take__unhealthy__the_others_serve_until_it_is_back_slowly() -> None:
    one = service(2, slow_start_s=10.0)
    a = one.targets[0]
    get_unhealthy(a)
    assert visits(one, 4, 100.0) == "bbbb"
    assert a.why(100.0) == "health: connection refused"
    get_healthy(a, 200.0)
    assert Counter(visits(one, 200, 200.0))["a"] < 25
    assert a.why(205.0) == "slow start 50 %"
    assert 35 < Counter(visits(one, 200, 205.0))["a"] < 65
    assert Counter(visits(one, 200, 210.0))["a"] == 100
    assert (a.blocked, a.why(210.0)) == (False, "")


@pytest.mark.parametrize("strategy", ["least_connections", "p2c"])
def test_take__slow_start_by_load__fewer_requests_in_flight(strategy: str) -> None:
    one = service(2, strategy, slow_start_s=10.0)
    one.targets[0].warm_up(100.0)
    for _ in range(110):
        one.take(101.0, None, ())
    assert one.targets[0].inflight == pytest.approx(10, abs=2)


def test_take__slow_start_with_nobody_else__everything() -> None:
    one = service(1)
    one.targets[0].warm_up(100.0)
    assert visits(one, 3, 100.0) == "aaa"


# --- panic
# ------------------------------------------------------------------------------------------------------------


def test_panic__all_unhealthy__still_served_and_counted() -> None:
    one = service(2)
    for target in one.targets:
        get_unhealthy(target)
    assert Counter(visits(one, 10, 100.0)) == {"a": 5, "b": 5}
    assert one.panicked == 10


def test_panic__open_breaker__not_overruled() -> None:
    one = service(2, outlier_failures=0)
    visits(one, 80, 100.0, {"a": FAILED, "b": FAILED})
    assert (visits(one, 3, 101.0), one.panicked) == ("---", 0)
    assert one.wait_s(101.0) == min(target.breaker.open_until for target in one.targets) - 101.0
    one = service(2, outlier_failures=0)
    visits(one, 50, 100.0, {"a": FAILED})
    get_unhealthy(one.targets[1])
    assert (visits(one, 3, 101.0), one.panicked) == ("bbb", 3)


def test_panic__retry_while_a_good_target_was_tried__no_emergency() -> None:
    one = service(2)
    a, b = one.targets
    get_unhealthy(b)
    assert one.take(100.0, None, (a,)) is None
    get_unhealthy(a)
    assert one.take(100.0, None, (a,)) is b


# --- retries
# ----------------------------------------------------------------------------------------------------------


def decide(method: str = "GET", **values: Any) -> str:
    given: dict[str, Any] = {
        "written": True, "answered": False, "stale": False, "replayable": True,
        "attempts": 1, "freed": False, "policy": Policy(),
    }  # fmt: skip
    return retry.decide(method, **(given | values))


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({}, retry.BUDGETED),
        ({"method": "POST"}, retry.NO),
        ({"method": "POST", "written": False}, retry.BUDGETED),
        ({"method": "PUT"}, retry.BUDGETED),
        ({"method": "PUT", "replayable": False}, retry.NO),
        ({"method": "POST", "written": False, "replayable": False}, retry.NO),
        ({"answered": True}, retry.NO),
        ({"answered": True, "stale": True}, retry.NO),
        ({"attempts": 3}, retry.NO),
        ({"stale": True}, retry.FREE),
        ({"stale": True, "attempts": 3}, retry.FREE),
        ({"stale": True, "freed": True}, retry.BUDGETED),
        ({"stale": True, "method": "POST"}, retry.NO),
        ({"stale": True, "method": "PUT"}, retry.FREE),
        ({"stale": True, "method": "PUT", "replayable": False}, retry.NO),
        ({"method": "PATCH"}, retry.NO),
        ({"method": "get"}, retry.NO),
    ],
)
def test_decide__failure__no_free_or_budgeted(values: dict[str, Any], verdict: str) -> None:
    assert decide(**values) == verdict


def test_backoff__attempts__full_jitter_up_to_a_quarter_second_within_the_deadline() -> None:
    almost = 0.999999
    spans = [retry.backoff_s(attempt, lambda: almost) for attempt in (1, 2, 3, 4, 5, 5000)]
    assert spans == pytest.approx([0.025, 0.05, 0.1, 0.2, 0.25, 0.25], rel=1e-4)
    assert retry.backoff_s(1, lambda: 0.0) == 0.0
    assert retry.backoff_s(4, lambda: 0.5, left_s=0.05) is None
    assert retry.backoff_s(1, lambda: almost, policy=Policy(retry_backoff_s=0.0)) == 0.0


def test_budget__quiet_service__three_at_a_time() -> None:
    one = service(2)
    assert [one.may_retry(1.0) for _ in range(5)] == [True, True, True, False, False]
    one.retried()
    assert [one.may_retry(1.0) for _ in range(2)] == [True, False]


def test_budget__thousand_requests_fail_at_once__a_fifth_is_retried_also_while_they_wait() -> None:
    one = service(4, breaker_volume=10_000, outlier_failures=0)
    taken = [one.take(100.0, None, ()) for _ in range(1000)]
    granted = 0
    for target in taken:
        assert target is not None
        one.settle(target, 0, FAILED, 0.01, 100.0)
        granted += one.may_retry(100.0)
    assert granted == 200  # 167, if those that wait did not count as under way
    for _ in range(granted):
        assert one.take(100.2, None, one.targets[:1]) is not None
    assert one._pausing == 0
    for _ in range(granted):
        one.retried()
    assert (one._retries, one._pausing) == (0, 0)


def test_budget__steady_load_with_a_dead_target__retries_stay_within_a_fifth() -> None:
    one = service(4, breaker_volume=10_000, outlier_failures=0)
    under_way, worst, refused = [], 0.0, 0
    for i in range(4000):
        now = 100.0 + i * 0.001
        target = one.take(now, None, ())
        assert target is not None
        if target.name == "a":
            one.settle(target, 0, FAILED, 0.001, now)
            if not one.may_retry(now):
                refused += 1
                continue
            target = one.take(now, None, (target,))
            assert target is not None
            under_way.append((target, True))
        else:
            under_way.append((target, False))
        if len(under_way) > 100:
            ended, was_retry = under_way.pop(0)
            one.settle(ended, 0, OK, 0.1, now)
            if was_retry:
                one.retried()
            worst = max(worst, one._retries / len(under_way))
    assert worst <= 0.21
    assert (
        250 <= refused < 350
    )  # a quarter of all would need a retry, a fifth of those under way may have one
