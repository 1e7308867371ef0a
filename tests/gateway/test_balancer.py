"""How the six strategies share requests out, by simulation."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from gateway.balancer import MAX_POINTS, STRATEGIES, Ring, _points, strategy
from gateway.policy import Policy
from gateway.pool import Target


def targets(*weights: int) -> list[Target]:
    return [Target("s", "abcdefghij"[i], weight) for i, weight in enumerate(weights)]


def made(name: str, of: list[Target], seed: int = 1, **policy: Any) -> Any:
    return strategy(name, of, Policy(**policy), random.Random(seed).random)


def proposed(one: Any, count: int, now: float = 1.0) -> str:
    return "".join(one.propose(now, None).name for _ in range(count))


def chosen(one: Any, usable: list[Target], count: int) -> str:
    return "".join(one.choose(usable, one.propose(1.0, None), 1.0, None).name for _ in range(count))


# --- turns
# ------------------------------------------------------------------------------------------------------------


def test_round_robin__weights_differ__everyone_as_often() -> None:
    assert proposed(made("round_robin", targets(5, 1, 1)), 6) == "abcabc"


def test_weighted__five_one_one__smooth() -> None:
    assert proposed(made("weighted", targets(5, 1, 1)), 14) == "aabacaa" * 2
    assert proposed(made("weighted", targets(10, 2, 2)), 7) == "aabacaa"


def test_weighted__weights_without_a_common_part__schedule_stays_short_and_fair() -> None:
    one = made("weighted", targets(997, 991, 983, 977, 971, 967))
    counts = Counter(proposed(one, 6000))
    assert max(counts.values()) - min(counts.values()) < 60


@pytest.mark.parametrize("name", ["round_robin", "weighted"])
def test_turns__one_unusable__its_turns_are_shared_out_by_weight(name: str) -> None:
    a, b, c = of = targets(2, 1, 1)
    assert Counter(chosen(made(name, of), [b, c], 400)) == {"b": 200, "c": 200}
    counts = Counter(chosen(made(name, of), [a, b], 600))
    assert counts["a"] == (400 if name == "weighted" else 300)


@pytest.mark.parametrize(("ramp", "least", "most"), [(0.1, 20, 55), (0.5, 140, 200), (1.0, 333, 334)])
def test_turns__slow_start__that_part_of_the_share(ramp: float, least: int, most: int) -> None:
    of = targets(1, 1, 1)
    of[1].ramp = ramp
    counts = Counter(chosen(made("round_robin", of), of, 1000))
    assert least <= counts["b"] <= most
    assert abs(counts["a"] - counts["c"]) <= 2


def test_turns__one_unusable_and_one_in_its_slow_start__the_third_takes_most_of_it() -> None:
    a, b, c = targets(1, 1, 1)
    one = made("round_robin", [a, b, c])
    b.ramp = 0.1
    counts = Counter(one.choose([b, c], a, 1.0, None).name for _ in range(110))
    assert counts == {"b": 10, "c": 100}


# --- load
# -------------------------------------------------------------------------------------------------------------


def test_least_connections__load_per_weight__lowest_wins_and_equals_take_turns() -> None:
    a, b, c = of = targets(10, 1, 1)
    a.inflight, c.inflight = 4, 1
    assert proposed(made("least_connections", of), 2) == "aa"
    equal = targets(1, 1, 1)
    assert sorted(proposed(made("least_connections", equal), 3)) == ["a", "b", "c"]


def serve(one: Any, of: list[Target], requests: int, busy: int) -> Counter[str]:
    """Requests with `busy` in flight at any time, ended in random order; how many each target got."""
    dice, under_way, counts = random.Random(3), [], Counter[str]()
    for _ in range(requests):
        target = one.propose(1.0, None)
        target.inflight += 1
        counts[target.name] += 1
        under_way.append(target)
        if len(under_way) > busy:
            under_way.pop(dice.randrange(len(under_way))).inflight -= 1
    return counts


@pytest.mark.parametrize("name", ["least_connections", "p2c"])
def test_load__weights__requests_in_flight_follow_them(name: str) -> None:
    of = targets(4, 2, 2)
    serve(made(name, of), of, 3000, 80)
    assert [abs(target.inflight - share) <= 6 for target, share in zip(of, (40, 20, 20), strict=True)]
    assert of[0].inflight > 30


def test_p2c__ten_equal_targets__near_even_while_random_choice_is_not() -> None:
    of = targets(*[1] * 10)
    serve(made("p2c", of), of, 3000, 100)
    assert max(target.inflight for target in of) <= 14


def test_p2c__never_the_same_target_twice() -> None:
    of = targets(1, 1)
    of[0].inflight = 5
    assert set(proposed(made("p2c", of), 50)) == {"b"}
    assert set(proposed(made("p2c", targets(1)), 5)) == {"a"}


# --- latency
# ----------------------------------------------------------------------------------------------------------


def measured(*latencies_s: float, at: float = 100.0) -> list[Target]:
    of = targets(*[1] * len(latencies_s))
    for target, latency_s in zip(of, latencies_s, strict=True):
        target.ewma_s, target.ewma_at = latency_s, at if latency_s else 0.0
    return of


def test_peak_ewma__latency_and_load__the_shorter_expected_wait() -> None:
    of = measured(0.010, 0.030)
    one = made("peak_ewma", of)
    assert set(proposed(one, 20, now=100.0)) == {"a"}
    of[0].inflight = 3  # four times 10 ms against once 30 ms
    assert set(proposed(one, 20, now=100.0)) == {"b"}


def test_peak_ewma__slow_once__tried_again_after_a_while() -> None:
    of = measured(0.010, 1.0)
    one = made("peak_ewma", of, ewma_decay_s=10.0)
    assert set(proposed(one, 20, now=100.0)) == {"a"}
    of[0].ewma_at = 160.0  # it went on answering in 10 ms
    assert set(proposed(one, 20, now=160.0)) == {"b"}  # e^-6 of a second is below 10 ms


def test_peak_ewma__hangs_after_a_quiet_time__not_quicker_than_those_that_answer() -> None:
    good, bad = of = measured(0.020, 0.020)
    one, counts = made("peak_ewma", of), Counter[str]()
    for i in range(400):
        now = 300.0 + i * 0.01
        target = one.propose(now, None)
        counts[target.name] += 1
        if target is good:
            target.ewma_s, target.ewma_at = 0.020, now
        else:
            target.inflight += 1
    assert counts[bad.name] < 5


def test_peak_ewma__slow_once_and_with_a_long_stream__tried_again_after_a_while() -> None:
    of = measured(0.010, 1.0)
    of[1].inflight, of[1].asked_at = 1, 100.0
    one = made("peak_ewma", of)
    of[0].ewma_at = 160.0
    assert one.propose(160.0, None) is of[1]


def test_peak_ewma__new_target__starts_with_the_mean_of_the_others() -> None:
    cheap, dear, new = measured(0.010, 0.030, 0.0)
    cost = made("peak_ewma", [cheap, dear, new])._cost
    assert cost(new, 100.0) == pytest.approx(0.020)
    assert cost(cheap, 100.0) < cost(new, 100.0) < cost(dear, 100.0)
    first, second = of = measured(0.0, 0.0)
    cost = made("peak_ewma", of)._cost
    assert cost(first, 100.0) == cost(second, 100.0) > 0


def test_peak_ewma__new_target_and_one_request_at_a_time__gets_its_turns() -> None:
    of = measured(0.010, 0.010, 0.0)
    one, counts = made("peak_ewma", of), Counter[str]()
    for i in range(600):
        now = 100.0 + i * 0.01
        target = one.propose(now, None)
        counts[target.name] += 1
        target.ewma_s, target.ewma_at = 0.010, now
    assert min(counts.values()) > 120


# --- a key
# ------------------------------------------------------------------------------------------------------------


KEYS = [b"10.0.%d.%d" % (i // 250, i % 250) for i in range(4000)]


def owners(one: Any, usable: list[Target]) -> list[str]:
    return [one.choose(usable, one.propose(1.0, key), 1.0, key).name for key in KEYS]


def test_ring__weights__keys_in_proportion_and_always_at_the_same_target() -> None:
    of = targets(2, 1, 1)
    one = made("consistent_hash", of)
    counts = Counter(one.propose(1.0, key).name for key in KEYS)
    assert 0.42 < counts["a"] / len(KEYS) < 0.58
    assert min(counts.values()) / len(KEYS) > 0.18
    again = made("consistent_hash", of[::-1], seed=9)  # another process, with the rows in another order
    assert owners(one, of) == owners(again, of)


def test_ring__target_leaves_or_is_blocked__only_its_keys_move() -> None:
    of = targets(1, 1, 1, 1)
    before = owners(made("consistent_hash", of), of)
    left = owners(made("consistent_hash", of[:3]), of[:3])
    assert left == owners(made("consistent_hash", of), of[:3])
    assert all(new == old for old, new in zip(before, left, strict=True) if old != "d")
    moved = Counter(new for old, new in zip(before, left, strict=True) if old == "d")
    assert set(moved) == {"a", "b", "c"}  # shared out, not all to one neighbour


def test_ring__one_popular_key__bounded_load_and_the_rest_to_the_next() -> None:
    of = targets(1, 1, 1, 1)
    one = made("consistent_hash", of)
    for _ in range(400):
        one.propose(1.0, b"popular").inflight += 1
    loads = sorted((target.inflight for target in of), reverse=True)
    assert loads[0] == 125  # 1.25 times its fair share of 400
    assert sum(loads) == 400
    unbounded = made("consistent_hash", targets(1, 1), hash_balance=0.0)
    assert len({unbounded.propose(1.0, b"popular") for _ in range(50)}) == 1


def test_ring__a_few_requests_in_flight__a_caller_is_not_moved() -> None:
    of = targets(1, 1, 1)
    one = made("consistent_hash", of)
    first = one.propose(1.0, b"me")
    for _ in range(5):
        assert one.propose(1.0, b"me") is first
        first.inflight += 1


def test_ring__no_key__takes_turns() -> None:
    assert proposed(made("consistent_hash", targets(1, 1, 1)), 6) == "abcabc"


def test_ring__large_weights__fewer_points_a_unit_and_those_are_the_same() -> None:
    small, large = _points(targets(1, 1)), _points(targets(1000, 1000))
    assert len(small) == 2 * 104  # a hundred, in whole digests
    assert len(large) <= MAX_POINTS
    known = {point for point, target in large if target.name == "a"}
    assert known >= {point for point, target in small if target.name == "a"}


# --- all of them
# ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategy__one_usable__chosen_whatever_is_proposed(name: str) -> None:
    of = targets(1, 2, 3)
    one = made(name, of)
    assert {one.choose(of[1:2], one.propose(1.0, b"k"), 1.0, b"k").name for _ in range(20)} == {"b"}


def test_strategy__unknown__value_error() -> None:
    with pytest.raises(ValueError, match="fastest"):
        made("fastest", targets(1))
    assert isinstance(made("consistent_hash", targets(1)), Ring)
