from __future__ import annotations

import itertools
import math

import pytest

from queue_app.autoscale import Autoscaler, Goal, Sight

EVERY_S = 5.0


class Shop:
    """Jobs that arrive and processes that work them off, `capacity` a second each; a look every 5 s."""

    def __init__(self, goal: Goal, *, capacity: float = 100.0, processes: int = 1) -> None:
        self.scaler = Autoscaler(goal)
        self.capacity, self.processes = capacity, processes
        self.at = self.backlog = self.ended = 0.0
        self.history: list[int] = []
        self.emptied_at = 0.0

    def run(self, looks: int, *, per_s: float = 0.0, burst: float = 0.0) -> None:
        self.backlog += burst
        for _ in range(looks):
            self.at += EVERY_S
            waiting = self.backlog + per_s * EVERY_S
            done = min(waiting, self.processes * self.capacity * EVERY_S)
            self.backlog = waiting - done
            if done and not self.backlog:
                self.emptied_at = self.at
            self.ended += done
            oldest_s = self.backlog / max(per_s, self.capacity) if self.backlog else 0.0
            sight = Sight(self.at, round(self.backlog), oldest_s, round(self.ended), self.processes)
            self.processes = self.scaler.wanted(sight)
            self.history.append(self.processes)


def goal(**changes: float) -> Goal:
    return Goal(**{"latency_s": 10.0, "least": 1, "most": 8, "hold_s": 60.0} | changes)  # type: ignore[arg-type]


def test_wanted__nothing_to_do__stays_at_the_least() -> None:
    shop = Shop(goal())
    shop.run(40)
    assert set(shop.history) == {1}


def test_wanted__a_burst__grows_by_as_much_again_at_most_and_shrinks_after_the_hold() -> None:
    shop = Shop(goal())
    shop.run(1)
    shop.run(10, burst=20_000)
    assert max(shop.history) == 8
    assert all(after <= before * 2 for before, after in itertools.pairwise([1, *shop.history]))
    while shop.processes > 1:
        shop.run(1)
        assert shop.at - shop.emptied_at < 300
    assert shop.at - shop.emptied_at >= 60 - EVERY_S
    assert shop.backlog == 0


@pytest.mark.parametrize("per_s", [50, 250, 450, 700])
def test_wanted__steady_arrivals__settles_on_what_keeps_up(per_s: float) -> None:
    shop = Shop(goal())
    shop.run(100, per_s=per_s)
    needed = math.ceil(per_s / 100)
    assert set(shop.history[-10:]) <= {needed, min(8, needed + 1)}
    assert shop.backlog < per_s * 10


def test_wanted__more_than_the_most_can_do__stays_at_the_most() -> None:
    shop = Shop(goal(most=3))
    shop.run(60, per_s=2_000)
    assert shop.history[-1] == 3


def test_wanted__a_dip_shorter_than_the_hold__takes_none_away() -> None:
    shop = Shop(goal())
    shop.run(40, per_s=450)
    before = shop.processes
    shop.run(6)  # 30 s
    assert shop.processes == before


def test_wanted__none_run_and_a_job_waits__starts_one() -> None:
    scaler = Autoscaler(goal(least=0))
    assert scaler.wanted(Sight(0.0, 0, 0.0, 0, 0)) == 0
    assert scaler.wanted(Sight(5.0, 1, 0.1, 0, 0)) == 1


def test_wanted__late_though_the_rates_promise_better__takes_one_more() -> None:
    scaler = Autoscaler(goal())
    scaler.capacity = 1000.0
    assert scaler.wanted(Sight(0.0, 5, 30.0, 0, 2)) == 3


def test_wanted__workers_are_replaced_and_their_count_falls__takes_no_negative_rate() -> None:
    scaler = Autoscaler(goal())
    scaler.wanted(Sight(0.0, 1000, 1.0, 50_000, 2))
    scaler.wanted(Sight(5.0, 1000, 1.0, 0, 2))
    assert scaler.capacity is None


@pytest.mark.parametrize(
    "changes",
    [
        {"latency_s": 0},
        {"latency_s": math.inf},
        {"least": -1},
        {"least": 5, "most": 2},
        {"least": 0, "most": 0},
        {"hold_s": -1},
    ],
)
def test_goal__that_cannot_be__is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="is no"):
        goal(**changes)
