"""How long things took, as counts in buckets: bounds, folding fine buckets into coarse ones, quantiles.

The fine bounds are the R20 series of ISO 3 (20 a decade) and hold all of Prometheus's coarse ones, so that one count a
request serves both. A quantile read from them lies in the bucket of the true one: it is off by at most 14.3 % of it
(ERROR), below 0.1 ms by at most 0.1 ms, however many histograms were added up. What took longer than 1000 s reads as
1000 s.
"""

from __future__ import annotations

from collections.abc import Sequence

# Of Prometheus, where each bound is a series of every route.
BUCKETS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0
)  # fmt: skip
# Of the time that the gateway itself took, a tenth of a millisecond where all is well.
OVERHEAD_BUCKETS_S = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0
)  # fmt: skip
_R20 = (
    1.0, 1.12, 1.25, 1.4, 1.6, 1.8, 2.0, 2.24, 2.5, 2.8, 3.15, 3.55, 4.0, 4.5, 5.0, 5.6, 6.3, 7.1, 8.0, 9.0
)  # fmt: skip
_DECADES = range(-4, 3)  # 0.1 ms to 1000 s
FINE_S = tuple(sorted({float(f"{r}e{ten}") for ten in _DECADES for r in _R20} | {1000.0} | set(BUCKETS_S)))
ERROR = 1.6 / 1.4 - 1.0  # the widest step of the series
QUANTILES = (0.5, 0.95, 0.99)

_ENDS = (*(FINE_S.index(bound) + 1 for bound in BUCKETS_S), len(FINE_S) + 1)
_SLICES = tuple(slice(begin, end) for begin, end in zip((0, *_ENDS), _ENDS, strict=False))


def coarse(fine: Sequence[float]) -> list[float]:
    """Counts by FINE_S (one more than it has bounds) as counts by BUCKETS_S."""
    return [sum(fine[part]) for part in _SLICES]


def quantile(counts: Sequence[float], share: float) -> float | None:
    """The duration in seconds that `share` (0 to 1) of them do not pass, interpolated in its bucket; None of no counts.

    counts: by FINE_S; there may be fewer of them when the last ones are zero.
    """
    total = sum(counts)
    if total <= 0:
        return None
    rank, before = share * total, 0.0
    for at, count in enumerate(counts):
        if count > 0 and before + count >= rank:
            return _within(at, (rank - before) / count)
        before += count
    return FINE_S[-1]  # the sum of floats fell short of the rank by its last digit


def quantiles(counts: Sequence[float]) -> tuple[float | None, ...]:
    """p50, p95 and p99 in seconds."""
    return tuple(quantile(counts, share) for share in QUANTILES)


def _within(at: int, part: float) -> float:
    if at >= len(FINE_S):
        return FINE_S[-1]
    lower = FINE_S[at - 1] if at else 0.0
    return lower + (FINE_S[at] - lower) * part
