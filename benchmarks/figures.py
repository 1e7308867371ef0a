"""What a benchmark reports."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """value: what is compared with goal; sides: the medians it comes from, with their unit.

    unit: "x" for a ratio of the sides. goal: to be reached from below, with at_most from above.
    """

    figure: str
    value: float
    unit: str
    goal: float | None
    reached: bool | None
    sides: dict[str, str]
    at_most: bool = False


def ratio(
    figure: str, ours: Sequence[float], theirs: Sequence[float], unit: str, goal: float | None
) -> Figure:
    """How many times better we are, more being better; give costs as `cost`. Medians over the rounds."""
    sides = {"brain": median(ours, unit), "usual": median(theirs, unit)}
    return judged(figure, statistics.median(ours) / statistics.median(theirs), "x", goal, sides)


def cost(
    figure: str, ours: Sequence[float], theirs: Sequence[float], unit: str, goal: float | None
) -> Figure:
    """How many times cheaper we are."""
    sides = {"brain": median(ours, unit), "usual": median(theirs, unit)}
    return judged(figure, statistics.median(theirs) / statistics.median(ours), "x", goal, sides)


def paired(
    figure: str,
    ours: tuple[str, Sequence[float]],
    theirs: tuple[str, Sequence[float]],
    unit: str,
    goal: float | None,
) -> Figure:
    """How many times more ours is, by the median of the ratios inside each pair: a slow minute hits both of a pair.

    ours, theirs: the name of the side and its values, one a round.
    """
    value = statistics.median(mine / other for mine, other in zip(ours[1], theirs[1], strict=True))
    sides = {name: median(values, unit) for name, values in (ours, theirs)}
    return judged(figure, value, "x", goal, sides)


def judged(
    figure: str, value: float, unit: str, goal: float | None, sides: dict[str, str], *, at_most: bool = False
) -> Figure:
    """A figure that knows whether its goal is reached; judged before it is rounded."""
    reached = None if goal is None else (value <= goal if at_most else value >= goal)
    return Figure(figure, round(value, 2), unit, goal, reached, sides, at_most)


def median(values: Sequence[float], unit: str) -> str:
    """The median and the range, as a person reads it."""
    digits = 0 if max(values) >= 100 else 1
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} {unit} ({low:,.{digits}f}–{high:,.{digits}f})"
