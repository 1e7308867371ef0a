"""From samples to the rows of the table: ratios inside each pass, medians over the passes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.figures import Figure, judged, median

from .measure import Sample

Named = tuple[str, Sequence[float]]  # a side's title and its value in each pass


def at_most(figure: str, ours: Named, theirs: Named, goal: float | None, unit: str = "µs") -> Figure:
    """How many times theirs ours costs."""
    value = statistics.median(mine / other for mine, other in zip(ours[1], theirs[1], strict=True))
    return judged(figure, value, "x", goal, _sides(unit, ours, theirs), at_most=True)


def times_better(figure: str, ours: Named, theirs: Named, goal: float | None, unit: str = "µs") -> Figure:
    """How many times ours theirs costs."""
    value = statistics.median(other / mine for mine, other in zip(ours[1], theirs[1], strict=True))
    return judged(figure, value, "x", goal, _sides(unit, ours, theirs))


def more(figure: str, ours: Named, theirs: Named, unit: str, goal: float) -> Figure:
    """By how much ours is more than theirs; the goal is a ceiling."""
    value = statistics.median(mine - other for mine, other in zip(ours[1], theirs[1], strict=True))
    return judged(figure, value, unit, goal, _sides(unit, ours, theirs), at_most=True)


def side(part: str, title: str, samples: Sequence[Sample]) -> Figure:
    """All that was seen of one side."""
    cpu = [sample.cpu_us for sample in samples]
    seen = {
        "CPU": median(cpu, "µs"),
        "requests": median([sample.per_s for sample in samples], "/s"),
        "p50": median([sample.p50_us for sample in samples], "µs"),
        "p99": median([sample.p99_us for sample in samples], "µs"),
    }
    return judged(f"{part}: {title}, CPU a request", statistics.median(cpu), "µs", None, seen)


def cpu(title: str, samples: Sequence[Sample]) -> Named:
    return title, [sample.cpu_us for sample in samples]


def _sides(unit: str, *named: Named) -> dict[str, str]:
    return {title: median(values, unit) for title, values in named}
