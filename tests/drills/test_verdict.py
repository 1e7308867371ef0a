from __future__ import annotations

import pytest

from .verdict import Fate, Verdict, judge

DONE = Fate("a", "COMPLETED", 1, 0)


@pytest.mark.parametrize(
    ("fates", "effects", "expected"),
    [
        ([DONE], [("a", 1)], Verdict(0, 0, 0)),
        ([], [], Verdict(1, 0, 0)),
        ([DONE], [], Verdict(1, 0, 0)),
        ([Fate("a", "PROCESSING", 0, 0)], [("a", 1)], Verdict(1, 0, 0)),
        ([Fate("a", "DEAD_LETTER", 0, 3)], [], Verdict(0, 0, 1)),
        ([Fate("a", "COMPLETED", 2, 1)], [("a", 1), ("a", 2)], Verdict(0, 1, 0)),
        ([DONE], [("a", 1), ("a", 2)], Verdict(0, 1, 0)),
        ([Fate("a", "COMPLETED", 1, 1)], [("a", 1), ("a", 2)], Verdict(0, 0, 0)),
        ([Fate("a", "COMPLETED", 1, 1)], [("a", 1), ("a", 1)], Verdict(0, 1, 0)),
    ],
)
def test_judge__what_became_of_one_job__is_counted(
    fates: list[Fate], effects: list[tuple[str, int]], expected: Verdict
) -> None:
    assert judge(["a"], fates, effects) == expected
