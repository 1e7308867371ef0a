"""BRAIN["CACHE"]: defaults and units. Read `conf()` where a value is used, never at import time."""

from __future__ import annotations

from dataclasses import dataclass

from foundation.conf import Bound, setting


@dataclass(frozen=True, slots=True)
class CacheConf:
    MAX_CONNECTIONS: int = setting(
        50, low=1, high=10_000
    )  # per process (async: per loop); callers wait for a free one
    POOL_WAIT_S: float = setting(5.0, low=0.01, high=60)  # for a free connection, then ConnectionError
    CONNECT_TIMEOUT_S: float = setting(1.0, low=0.01, high=60)  # dialling Redis
    COMMAND_TIMEOUT_S: float = setting(3.0, low=0.1, high=300)  # one command's answer
    DEFAULT_TTL_S: float = setting(300.0, low=0.001, high=31_536_000)  # of `@cached` without ttl_s
    ON_STORE_DOWN: str = setting("load", choices=("load", "raise"))  # `@cached` while Redis does not answer
    REBUILD_WAIT_S: float = setting(30.0, low=0.0, high=600)  # of `@cached`: for the process that loads
    REBUILD_LEASE_S: float = setting(5.0, low=0.1, high=3600)  # renewed while it loads; a killed one's ends
    REFRESH_THREADS: int = setting(4, low=1, high=64)  # per process, for loads in the background of sync code
    MODEL_TAGS: tuple[str, ...] = ()  # "app.model" that only other processes' `@cached(depends_on=…)` name
    STATS_EVERY_S: float = setting(5.0, low=0.1, high=300)  # a process adds its counts to the shared ones
    SLOW_MS: float = setting(50.0, low=0.1, high=60_000)  # an operation that took longer is kept with its key
    LOG_EVERY_S: float = setting(30.0, low=0.0, high=3600)  # at most one line per event and interval


conf = Bound("CACHE", CacheConf)
