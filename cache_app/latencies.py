"""How long things took, counted in ten buckets per decade from 1 µs to 10 s: small to keep, exact to add up. Pure.

Bucket i holds (BOUNDS_S[i-1], BOUNDS_S[i]]; the last one is open. A quantile is found in its bucket: off by at most 27 %.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

# The R10 series of preferred numbers (ISO 3), so that 1, 2, 2.5 and 5 are bounds: a scraper gets those (COARSE_S).
_SERIES = (1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0)
BOUNDS_S = (*(float(f"{step}e{decade}") for decade in range(-6, 1) for step in _SERIES), 10.0)
COARSE_S = (*(float(f"{step}e{decade}") for decade in range(-6, 1) for step in (1.0, 2.5, 5.0)), 10.0)
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
OPEN = len(BOUNDS_S)  # the bucket of everything above the last bound

_bucket = partial(bisect_left, BOUNDS_S)


@dataclass(slots=True)
class Latencies:
    """buckets: number → how many, empty ones left out; total_s: the sum of all durations."""

    buckets: dict[int, int] = field(default_factory=dict)
    total_s: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.buckets.values())

    @property
    def mean_s(self) -> float | None:
        count = self.count
        return self.total_s / count if count else None

    def note(self, durations: Sequence[float]) -> None:
        for number, count in Counter(map(_bucket, durations)).items():
            self.buckets[number] = self.buckets.get(number, 0) + count
        self.total_s += sum(durations)

    def add(self, more: Latencies) -> None:
        for number, count in more.buckets.items():
            self.buckets[number] = self.buckets.get(number, 0) + count
        self.total_s += more.total_s

    def without(self, earlier: Latencies) -> Latencies:
        """What came after `earlier`, a reading of the same histogram."""
        more = {number: count - earlier.buckets.get(number, 0) for number, count in self.buckets.items()}
        return Latencies({n: count for n, count in more.items() if count}, self.total_s - earlier.total_s)

    def copy(self) -> Latencies:
        return Latencies(dict(self.buckets), self.total_s)

    def quantile(self, share: float) -> float | None:
        """The seconds that `share` (0 to 1) of them do not pass, by interpolation in its bucket; None of nothing."""
        total = self.count
        if not total:
            return None
        rank, seen = share * total, 0
        for number in sorted(self.buckets):
            count = self.buckets[number]
            if seen + count >= rank:
                low, high = _bounds(number)
                return low + (high - low) * max(0.0, rank - seen) / count
            seen += count
        raise AssertionError("unreachable: the counts add up to the total")

    def quantiles(self) -> dict[str, float | None]:
        """{"p50": seconds, "p95": …, "p99": …}"""
        return {name: self.quantile(share) for name, share in QUANTILES.items()}

    def cumulated(self) -> list[tuple[str, float]]:
        """As Prometheus wants it: the upper bound, how many were at most as long."""
        found: list[tuple[str, float]] = []
        numbers = sorted(self.buckets)
        for bound in COARSE_S:
            last = bisect_left(BOUNDS_S, bound)
            found.append((f"{bound:g}", sum(self.buckets[n] for n in numbers if n <= last)))
        return [*found, ("+Inf", self.count)]


def total(histograms: Iterable[Latencies]) -> Latencies:
    found = Latencies()
    for histogram in histograms:
        found.add(histogram)
    return found


def by_operation(namespaces: Iterable[Mapping[str, Latencies]]) -> dict[str, Latencies]:
    """{operation: histogram} of several such mappings, added up."""
    found: dict[str, Latencies] = {}
    for operations in namespaces:
        for operation, histogram in operations.items():
            found.setdefault(operation, Latencies()).add(histogram)
    return found


def _bounds(number: int) -> tuple[float, float]:
    low = BOUNDS_S[number - 1] if number else 0.0
    return low, BOUNDS_S[number] if number < OPEN else math.nextafter(low, math.inf)
