"""When a failed job runs again: exponential back-off with full jitter (AWS Architecture Blog, 2015)."""

from __future__ import annotations

_LARGEST_EXPONENT = 62  # 2.0 ** attempt would overflow for a job that is tried a thousand times


def longest_delay_s(attempt: int, *, base_s: float, max_s: float) -> float:
    """Upper bound of the wait after run number `attempt` (1 = the first): base · 2^(attempt-1), at most max."""
    return min(max_s, base_s * 2.0 ** min(attempt - 1, _LARGEST_EXPONENT))


def next_delay_s(
    attempt: int, max_attempts: int, *, base_s: float, max_s: float, jitter: float
) -> float | None:
    """Seconds to wait after failed run number `attempt`, or None when it was the last one.

    jitter: uniform in [0, 1). Full jitter spreads the retries of jobs that failed together over the whole interval.
    """
    if attempt >= max_attempts:
        return None
    return jitter * longest_delay_s(attempt, base_s=base_s, max_s=max_s)
