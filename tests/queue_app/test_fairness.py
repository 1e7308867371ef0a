"""Whose turn it is: shares over tenants, by weights, and never through a backlog."""

from __future__ import annotations

from collections import Counter

from queue_app import fairness
from queue_app.fairness import CREDIT, Claimant

MANY = 100_000


def played(weights: dict[str, int], rounds: int, slots: int) -> Counter[str]:
    """Jobs that each tenant got when all have more than enough waiting."""
    got, position = Counter[str](), 0.0
    positions = dict.fromkeys(weights, 0.0)
    for _ in range(rounds):
        whos = {name: Claimant(name, weights[name], positions[name], MANY) for name in weights}
        shares = fairness.share(list(whos.values()), slots, position=position)
        before = position
        for name, jobs in shares.items():
            positions[name], reached = fairness.advanced(whos[name], jobs, before)
            position = max(position, reached)
        got.update(shares)
    return got


def test_share__equal_weights__each_gets_the_same() -> None:
    assert fairness.share(
        [Claimant(name, 1, 0.0, MANY) for name in "abcd"], 8, position=0.0
    ) == dict.fromkeys("abcd", 2)
    got = played(dict.fromkeys("abc", 1), rounds=100, slots=4)
    assert max(got.values()) - min(got.values()) <= 1


def test_share__three_to_one__holds_over_a_window_and_in_small_steps() -> None:
    for slots in (1, 3, 7):
        got = played({"large": 3, "small": 1}, rounds=400 // slots, slots=slots)
        assert abs(got["large"] - 3 * got["small"]) <= 4


def test_share__less_room_than_its_share__the_rest_goes_to_the_others() -> None:
    tight, open_ = Claimant("a", 1, 0.0, 1), Claimant("b", 1, 0.0, MANY)
    assert fairness.share([tight, open_, Claimant("c", 1, 0.0, 0)], 10, position=0.0) == {"a": 1, "b": 9}
    assert fairness.share([], 10, position=0.0) == {}


def test_share__a_tenant_comes_to_a_long_backlog__its_first_job_is_next() -> None:
    backlog, comes = Claimant("backlog", 1, 5000.0, MANY), Claimant("comes", 1, 0.0, MANY)
    assert fairness.share([backlog, comes], 1, position=4999.0) == {"comes": 1}


def test_share__was_away_for_long__is_ahead_by_its_credit_and_no_more() -> None:
    here, back = Claimant("here", 1, 5000.0, MANY), Claimant("back", 1, 0.0, MANY)
    shares = fairness.share([here, back], 40, position=5000.0)
    assert shares["back"] - shares["here"] == CREDIT


def test_advanced__some_jobs__both_positions_move_on_by_weight() -> None:
    who = Claimant("a", 2, 10.0, MANY)
    assert fairness.advanced(who, 4, 9.0) == (12.0, 11.5)
    assert fairness.advanced(who, 0, 9.0) == (10.0, 9.0)
