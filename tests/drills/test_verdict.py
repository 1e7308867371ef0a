from __future__ import annotations

import pytest

from .verdict import Fate, Verdict, chain_holds, judge, recovery_s

DONE = Fate("a", "COMPLETED", steps=("PENDING", "PROCESSING", "COMPLETED"))
DEAD = Fate("a", "DEAD_LETTER", crashes=3)


@pytest.mark.parametrize(
    ("fates", "effects", "lines", "expected"),
    [
        ([DONE], ["a"], [], Verdict(0, 0, 0)),
        ([DONE], [], [("a", 1)], Verdict(0, 0, 0)),
        ([], ["a"], [], Verdict(1, 0, 0)),
        ([DONE], [], [], Verdict(1, 0, 0)),
        ([Fate("a", "FAILED")], [], [("a", 1)], Verdict(1, 0, 0)),
        ([Fate("a", "PROCESSING")], [], [("a", 1)], Verdict(1, 0, 0)),
        ([Fate("a", "CANCELLED")], [], [], Verdict(0, 0, 0)),
        ([DEAD], [], [], Verdict(0, 0, 1)),
        ([DONE], ["a", "a"], [], Verdict(0, 1, 0, 1)),
        ([DONE], [], [("a", 1), ("a", 2)], Verdict(0, 0, 0, 1)),
        ([DONE], [], [("a", 1), ("a", 1)], Verdict(0, 1, 0, 1)),
        ([DONE], [], [("a", 0), ("a", 0)], Verdict(0, 0, 0, 1)),  # broker delivery: no fence
    ],
)
def test_judge__what_became_of_one_job__is_counted(
    fates: list[Fate], effects: list[str], lines: list[tuple[str, int]], expected: Verdict
) -> None:
    assert judge(["a"], fates, effects, lines) == expected


@pytest.mark.parametrize(
    ("fate", "problem"),
    [
        (Fate("a", "PROCESSING", is_orphan=True), "1 in PROCESSING with a dead owner: a"),
        (Fate("a", "COMPLETED", steps=("PENDING", "COMPLETED")), "1 with a broken event chain: a"),
        (DEAD, "1 with an effect and not COMPLETED: a"),
    ],
)
def test_judge__evidence_contradicts_itself__is_a_problem(fate: Fate, problem: str) -> None:
    assert problem in judge(["a"], [fate], ["a"], []).problems


def test_judge__poison_and_innocents__are_told_apart() -> None:
    assert judge(["a"], [DEAD], [], [], poison=["a"]) == Verdict(0, 0, 0)
    assert judge(["a"], [DONE], ["a"], [], poison=["a"]).problems == ("1 poisoned and not DEAD_LETTER: a",)
    charged = Fate("a", "COMPLETED", crashes=1)
    assert judge(["a"], [charged], ["a"], [], uncharged=["a"]).problems == (
        "1 innocent and charged with a crash: a",
    )


@pytest.mark.parametrize(
    ("steps", "holds"),
    [
        (None, True),
        ((), False),
        (("PENDING", "PROCESSING", "COMPLETED"), True),
        (("PENDING", "PROCESSING", "PENDING", "PROCESSING", "FAILED", "PROCESSING", "COMPLETED"), True),
        (("PROCESSING", "COMPLETED"), False),
        (("PENDING", "PROCESSING"), False),
        (("PENDING", "PROCESSING", "COMPLETED", "COMPLETED"), False),
        (("PENDING", "PROCESSING", "PROCESSING", "COMPLETED"), False),
    ],
)
def test_chain_holds__steps_of_a_completed_job__only_allowed_ones_do(
    steps: tuple[str, ...] | None, holds: bool
) -> None:
    assert chain_holds(Fate("a", "COMPLETED", steps=steps)) is holds


def test_recovery_s__work_after_the_blow__is_the_last_of_what_was_held_or_the_first_of_any() -> None:
    finished = [("a", 9.0), ("b", 10.5), ("a", 12.0), ("a", 14.0)]
    assert recovery_s(10.0, finished) == 0.5
    assert recovery_s(10.0, finished, {"a", "b"}) == 2.0
    assert recovery_s(10.0, finished, {"never again"}) == 0.0
    assert recovery_s(20.0, finished) == float("inf")
