"""When a value is made anew although it still lives, so that its end never finds all callers at once. Pure.

XFetch: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015. Every reader
draws how far ahead of the end it looks, exponentially distributed around `load_s * beta`; the first one whose look
reaches the end makes the value. The more readers and the slower the load, the earlier one of them does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

BETA = 1.0  # the paper's optimum; above it earlier, 0 = never
REACH = 36.8  # -log of the smallest 1 - random.random(), which is 2**-53: nobody looks further ahead


def is_due(left_s: float, load_s: float, beta: float, draw: Callable[[], float]) -> bool:
    """left_s: until the end. load_s: how long making it took. draw: uniform on [0, 1), as random.random."""
    mean_s = load_s * beta
    if left_s >= mean_s * REACH:  # nearly every hit ends here, without a draw
        return False
    return left_s <= look_ahead_s(mean_s, draw())


def look_ahead_s(mean_s: float, drawn: float) -> float:
    return -mean_s * math.log(1.0 - drawn)
