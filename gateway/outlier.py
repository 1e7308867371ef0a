"""Passive health: a target that fails several times in a row is left alone for a while.

Envoy's outlier detection, except that the last usable target is never taken out (envoy#17504): some answers
are better than none.
"""

from __future__ import annotations

from .policy import Policy


def may_eject(ejected: int, usable_others: int, total: int, policy: Policy) -> bool:
    """ejected: targets that are out already, of `total`. One may always go while another can serve."""
    if not usable_others:
        return False
    return ejected == 0 or (ejected + 1) * 100 <= total * policy.outlier_max_percent


def ejection_s(times: int, policy: Policy) -> float:
    """How long the target stays out, for the `times`-th time (from 1)."""
    return min(policy.outlier_ejection_max_s, policy.outlier_ejection_s * times)


def unproven_s(times: int, policy: Policy) -> float:
    """How long no good probe ends that. The first time any does, as after a restart; a target that failed again soon after
    has shown that its probes say little, and stays out as long as it would have the last time (Envoy's default lets it in
    each time)."""
    return ejection_s(times - 1, policy)


def remembered(times: int, calm_s: float, policy: Policy) -> int:
    """Ejections that still count after calm_s back in traffic: one is forgiven for each base time."""
    return max(0, times - int(calm_s / policy.outlier_ejection_s))
