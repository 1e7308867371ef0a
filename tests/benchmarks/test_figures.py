from __future__ import annotations

from benchmarks.figures import Figure, cost, judged, paired, ratio


def test_ratio__medians__more_is_better_and_an_outlier_does_not_decide() -> None:
    found = ratio("requests", [200, 210, 9000], [100, 105, 1], "/s", 2.0)
    sides = {"brain": "210 /s (200–9,000)", "usual": "100 /s (1–105)"}
    assert found == Figure("requests", 2.1, "x", 2.0, True, sides)


def test_cost__twice_as_expensive__is_half_and_misses_the_goal() -> None:
    found = cost("CPU", [200.0], [100.0], "µs", 1.0)
    assert (found.value, found.reached) == (0.5, False)


def test_ratio__no_goal__is_neither_reached_nor_missed() -> None:
    assert ratio("requests", [1], [1], "/s", None).reached is None


def test_paired__a_slow_round__hits_both_sides_and_leaves_the_ratio() -> None:
    found = paired("drain", ("ours", [400.0, 40.0, 420.0]), ("theirs", [100.0, 10.0, 100.0]), "/s", 4.0)
    sides = {"ours": "400 /s (40–420)", "theirs": "100 /s (10–100)"}
    assert found == Figure("drain", 4.0, "x", 4.0, True, sides)


def test_judged__at_most__is_reached_from_above_and_judged_before_rounding() -> None:
    assert judged("p50", 3.0, "ms", 3.0, {}, at_most=True).reached is True
    missed = judged("p50", 3.001, "ms", 3.0, {}, at_most=True)
    assert (missed.value, missed.reached) == (3.0, False)
