from __future__ import annotations

from benchmarks.figures import Figure, cost, ratio


def test_ratio__medians__more_is_better_and_an_outlier_does_not_decide() -> None:
    found = ratio("requests", [200, 210, 9000], [100, 105, 1], "/s", 2.0)
    sides = {"brain": "210 /s (200–9,000)", "usual": "100 /s (1–105)"}
    assert found == Figure("requests", 2.1, "x", 2.0, True, sides)


def test_cost__twice_as_expensive__is_half_and_misses_the_goal() -> None:
    found = cost("CPU", [200.0], [100.0], "µs", 1.0)
    assert (found.value, found.reached) == (0.5, False)


def test_ratio__no_goal__is_neither_reached_nor_missed() -> None:
    assert ratio("requests", [1], [1], "/s", None).reached is None
