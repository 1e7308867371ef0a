"""What a pool counts, by psycopg_pool's names (its ConnectionPool.get_stats), so that one dashboard reads both."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Since the pool was made. *_ms: sums of milliseconds."""

    requests_num: int = 0
    requests_queued: int = 0  # those that had to wait
    requests_wait_ms: int = 0
    requests_errors: int = 0  # timeouts and refusals
    returns_bad: int = 0  # broken when they were given back
    returns_dirty: int = (
        0  # closed because a statement had left traces in the session; not among psycopg_pool's
    )
    usage_ms: int = 0  # from lending to giving back
    connections_num: int = 0  # attempts to connect
    connections_ms: int = 0
    connections_errors: int = 0
    connections_lost: int = 0  # found dead before they were lent, or never given back by a thread that ended
