"""Whether a request whose target gave no answer is sent again, and after what pause.

Only the gateway's own view counts here: a Retry-After in an answer belongs to that answer's reader and is
passed on, never waited for.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .policy import Policy

IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"))  # RFC 9110 section 9.2.2

NO = "no"
FREE = "free"  # at once, on a new connection, to the same target or another; costs nothing
BUDGETED = "budgeted"  # if Service.may_retry agrees: after backoff_s, to another target


def decide(
    method: str,
    *,
    written: bool,
    answered: bool,
    stale: bool,
    replayable: bool,
    attempts: int,
    freed: bool,
    policy: Policy,
) -> str:
    """NO, FREE or BUDGETED.

    written: a byte of the request may have reached the target. answered: response headers have been seen.
    stale: a reused connection was closed before the first byte of a response, which a server does with
    connections that it finds idle. replayable: the request has no body, or all of it is still here. attempts: targets it has been sent to. freed: it has had its free retry.
    """
    if answered or not replayable:
        return NO
    repeatable = method in IDEMPOTENT
    if stale and repeatable and not freed:
        return FREE
    if attempts >= policy.retry_attempts or (written and not repeatable):
        return NO
    return BUDGETED


def backoff_s(
    attempt: int, random: Callable[[], float], left_s: float = math.inf, policy: Policy | None = None
) -> float | None:
    """The pause before the `attempt`-th retry (from 1), anything below 25, 50, 100 … 250 ms ("full jitter").

    None: the deadline, left_s away, would come first.
    """
    base_s, most_s = (0.025, 0.25) if policy is None else (policy.retry_backoff_s, policy.retry_backoff_max_s)
    pause_s = random() * min(most_s, base_s * 2.0 ** min(attempt - 1, 32))
    return pause_s if pause_s < left_s else None


def allowance(active: int, policy: Policy) -> int:
    """Retries that may be under way or waiting while so many requests are (Envoy's retry budget)."""
    return max(policy.retry_budget_min, int(active * policy.retry_budget_ratio))
