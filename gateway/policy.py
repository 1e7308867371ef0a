"""What a service's owner may set about balancing, breaker, ejection, retries and health: defaults and units."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """Raises ValueError for values that make no sense together or alone."""

    # --- balancing
    slow_start_s: float = (
        10.0  # a target that comes (back) gets 10 % of its share, all of it so much later; 0: off
    )
    hash_balance: float = 1.25  # consistent_hash: load over its fair share that a target takes; 0: any
    ewma_decay_s: float = 10.0  # peak_ewma: how long a slow answer is remembered
    ewma_penalty_s: float = 1.0  # peak_ewma: a failure counts as an answer at least so slow
    # --- breaker, per target and process
    breaker_window_s: float = 10.0
    breaker_buckets: int = 10  # parts in which the window moves on
    breaker_volume: int = 20  # requests in the window below which there is no verdict
    breaker_error_ratio: float = 0.5  # 0: failures never open it
    breaker_slow_s: float = 0.0  # a slower answer is a slow call; 0: answers may take as long as they like
    breaker_slow_ratio: float = 0.5
    breaker_open_s: float = 5.0  # the first time, then doubled each time, +-20 %
    breaker_open_max_s: float = 60.0
    breaker_probes: int = 3  # requests let through at a time while half-open
    breaker_successes: int = 3  # of those, to close
    # --- passive health: ejection of outliers
    outlier_failures: int = 5  # in a row; 0: off
    outlier_ejection_s: float = 30.0  # times the number of ejections
    outlier_ejection_max_s: float = 300.0
    outlier_max_percent: int = (
        50  # of a service's targets at a time, but always one, and never the last usable
    )
    # --- retries
    retry_attempts: int = 3  # targets that one request is sent to at most; 1: no retries
    retry_budget_ratio: float = 0.2  # retries under way or waiting, per request under way
    retry_budget_min: int = 3  # retries that a quiet service may have under way
    retry_backoff_s: float = 0.025  # the first wait is random below this, doubled each time
    retry_backoff_max_s: float = 0.25
    # --- active health
    health_enabled: bool = True
    health_path: str = ""  # empty: a connection (and TLS handshake) is enough
    health_interval_s: float = 5.0
    health_timeout_s: float = 2.0
    health_statuses: str = "200-399"
    healthy_after: int = 2  # good probes in a row
    unhealthy_after: int = 3  # bad ones

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0")
        for name in _NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative")
        for name in ("breaker_error_ratio", "breaker_slow_ratio", "retry_budget_ratio"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} is a part of 1")
        if 0 < self.hash_balance < 1:
            raise ValueError("hash_balance below 1 leaves no room for all requests")


_POSITIVE = (
    "ewma_decay_s", "breaker_window_s", "breaker_buckets", "breaker_volume", "breaker_open_s", "breaker_open_max_s", "breaker_probes", "breaker_successes",
    "outlier_ejection_s", "outlier_ejection_max_s", "retry_attempts", "health_interval_s", "health_timeout_s",
    "healthy_after", "unhealthy_after",
)  # fmt: skip
_NOT_NEGATIVE = (
    "slow_start_s", "hash_balance", "ewma_penalty_s", "breaker_slow_s", "outlier_failures",
    "outlier_max_percent", "breaker_error_ratio", "breaker_slow_ratio", "retry_budget_ratio", "retry_budget_min", "retry_backoff_s", "retry_backoff_max_s",
)  # fmt: skip
