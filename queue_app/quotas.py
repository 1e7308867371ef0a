"""What can be a limit of a queue or of a tenant. Pure: the same words for the API, the admin and the command."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from .limiting import Rate

MOST = 1_000_000  # jobs at once, and of a rate
LONGEST_PERIOD_S = 31 * 86_400.0
HEAVIEST = 1000


class BadLimit(ValueError):
    """field: whose value cannot be a limit."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field, self.problem = field, problem


class Limited(Protocol):
    """A queue or a tenant, with limits of its own."""

    @property
    def rate_count(self) -> int | None: ...
    @property
    def rate_period_s(self) -> float | None: ...
    @property
    def rate_burst(self) -> int | None: ...


def check(given: Mapping[str, Any]) -> None:
    """Raises BadLimit. given: fields of a queue or a tenant, all that belong together."""
    for field in ("max_concurrency", "tenant_concurrency"):
        check_count(field, given.get(field))
    check_count("weight", given.get("weight"), most=HEAVIEST)
    for prefix in ("", "tenant_"):
        _check_rate(prefix, given)
    limits = [field for field in given if field not in ("delivery", "weight") and given[field]]
    if given.get("delivery") == "broker" and limits:
        raise BadLimit(limits[0], "needs ledger delivery: the broker's messages do not wait for turns")


def check_count(field: str, value: Any, *, most: int = MOST) -> None:
    """Raises BadLimit."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadLimit(field, f"= {value!r} is not a whole number")
    if not 1 <= value <= most:
        hint = "; pause what is to stop" if value == 0 else ""
        raise BadLimit(field, f"= {value} is not between 1 and {most:,}{hint}")


def rate(count: int | None, period_s: float | None, burst: int | None) -> Rate | None:
    """None where nothing is set."""
    return None if count is None or period_s is None else Rate(count, period_s, burst)


def _check_rate(prefix: str, given: Mapping[str, Any]) -> None:
    count, burst = given.get(f"{prefix}rate_count"), given.get(f"{prefix}rate_burst")
    period_s = given.get(f"{prefix}rate_period_s")
    check_count(f"{prefix}rate_count", count)
    check_count(f"{prefix}rate_burst", burst)
    if period_s is not None:
        _check_period(f"{prefix}rate_period_s", period_s)
    if count is not None and period_s is None:
        raise BadLimit(f"{prefix}rate_period_s", "is missing: a rate is a number of jobs in a period")
    for field, value in (("rate_period_s", period_s), ("rate_burst", burst)):
        if count is None and value is not None:
            raise BadLimit(f"{prefix}{field}", f"says nothing without {prefix}rate_count")


def _check_period(field: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadLimit(field, f"= {value!r} is not a number of seconds")
    if not 0.001 <= value <= LONGEST_PERIOD_S:
        raise BadLimit(field, f"= {value!r} is not between 0.001 and {LONGEST_PERIOD_S:,.0f} s")
