"""What a benchmark reports."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """value: what is compared with goal (a ratio: unit "x"); sides: the medians it comes from, with their unit."""

    figure: str
    value: float
    unit: str
    goal: float | None
    reached: bool | None
    sides: dict[str, str]


def ratio(
    figure: str, ours: Sequence[float], theirs: Sequence[float], unit: str, goal: float | None
) -> Figure:
    """How many times better we are, more being better; give costs as `cost`. Medians over the rounds."""
    return _compared(figure, statistics.median(ours) / statistics.median(theirs), ours, theirs, unit, goal)


def cost(
    figure: str, ours: Sequence[float], theirs: Sequence[float], unit: str, goal: float | None
) -> Figure:
    """How many times cheaper we are."""
    return _compared(figure, statistics.median(theirs) / statistics.median(ours), ours, theirs, unit, goal)


def _compared(
    figure: str, value: float, ours: Sequence[float], theirs: Sequence[float], unit: str, goal: float | None
) -> Figure:
    sides = {"brain": _median(ours, unit), "usual": _median(theirs, unit)}
    return Figure(figure, round(value, 2), "x", goal, None if goal is None else value >= goal, sides)


def _median(values: Sequence[float], unit: str) -> str:
    return f"{statistics.median(values):,.0f} {unit} ({min(values):,.0f}–{max(values):,.0f})"
