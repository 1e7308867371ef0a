"""How long a run may take: the task's limits, else its queue's, else the site's. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

LONGEST_S = 30 * 86_400.0


class Policy(Protocol):
    """Whatever may set limits, in seconds; None leaves them to the next one."""

    @property
    def soft_time_limit_s(self) -> float | None: ...
    @property
    def time_limit_s(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """soft_s: SoftTimeLimitExceeded is raised in the handler (None: never). hard_s: the run is ended from outside."""

    soft_s: float | None
    hard_s: float


def resolve(*policies: Policy | None, soft_s: float | None, hard_s: float) -> Limits:
    """The limits of a run: of each kind that of the first policy which sets it, else soft_s and hard_s.

    A soft limit that is not below the hard one could never be noticed, and is dropped.
    """
    set_by = [policy for policy in policies if policy is not None]
    soft = next((p.soft_time_limit_s for p in set_by if p.soft_time_limit_s is not None), soft_s)
    hard = next((p.time_limit_s for p in set_by if p.time_limit_s is not None), hard_s)
    return Limits(soft if soft is not None and soft < hard else None, hard)


def accept(name: str, limit_s: float | None) -> float | None:
    """limit_s when it can be a limit. ValueError names it otherwise."""
    if limit_s is None:
        return None
    if isinstance(limit_s, bool) or not isinstance(limit_s, int | float) or not math.isfinite(limit_s):
        raise ValueError(f"{name} = {limit_s!r} is not a number of seconds")
    if not 0 < limit_s <= LONGEST_S:
        raise ValueError(f"{name} = {limit_s!r} is not above 0 and at most {LONGEST_S:,.0f} s")
    return float(limit_s)
