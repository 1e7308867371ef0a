"""The arithmetic of the queue's figures, on the times at which handlers were entered."""

from __future__ import annotations

import math
from collections.abc import Sequence

SLOPE_FROM, SLOPE_TO = (
    0.08,
    0.95,
)  # the first jobs were claimed before the start, the last wait for a slow process


def slope(entered_ns: Sequence[int]) -> float:
    """Jobs per second between 8 % and 95 % of the jobs."""
    ordered = sorted(entered_ns)
    low, high = int(len(ordered) * SLOPE_FROM), int(len(ordered) * SLOPE_TO) - 1
    return (high - low) / (max(1, ordered[high] - ordered[low]) / 1e9)


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank: the smallest value that `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def pauses_ms(entered_ns: Sequence[int], part: int, parts: int) -> list[float]:
    """Between one job and the next, in the given part of the drain (0 is the first)."""
    ordered = sorted(entered_ns)
    size = len(ordered) // parts
    mine = ordered[part * size : (part + 1) * size]
    return [(later - earlier) / 1e6 for earlier, later in zip(mine, mine[1:], strict=False)]


def jobs_for(per_s: float, seconds: float, *, low: int = 300, high: int = 60_000) -> int:
    """How many jobs keep a side of this speed busy for about so long."""
    return max(low, min(high, round(per_s * seconds)))


def ramp_for(count: int) -> int:
    """How many unmeasured jobs go before `count` measured ones."""
    return min(500, count // 4)


def mean_rate(moments_s: Sequence[float]) -> float:
    """How many per second; what came at the first moment began the time and is not counted."""
    ordered = sorted(moments_s)
    later = len(ordered) - ordered.count(ordered[0])
    return later / max(1e-9, ordered[-1] - ordered[0])


def lag_s(moments_s: Sequence[float], per_s: float) -> tuple[float, float]:
    """The least and the most by which one came later than at an even rate from the first; below 0 is earlier."""
    ordered = sorted(moments_s)
    late = [at - ordered[0] - number / per_s for number, at in enumerate(ordered)]
    return min(late), max(late)
