"""The connection pools of this process, psycopg's and ours alike, for the admin, the command line and Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connections
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily


@dataclass(frozen=True, slots=True)
class PoolStats:
    """*_num, wait_ms, usage_ms: since the pool was made; zero for a pool that has not been used yet."""

    alias: str
    engine: str
    min_size: int
    max_size: int
    size: int  # connections: idle, lent, being opened
    available: int  # idle
    waiting: int  # callers
    requests_num: int
    queued_num: int  # requests that had to wait
    wait_ms: int  # of those, together
    errors_num: int  # requests that got none: timeouts and refusals
    usage_ms: int  # from lending to giving back, together
    connections_num: int  # attempts to connect
    connections_errors: int
    lost_num: int  # connections found dead
    bad_num: int  # connections given back broken
    dirty_num: int  # MySQL: closed because a statement had changed the session

    @property
    def in_use(self) -> int:
        return self.size - self.available


def stats(alias: str | None = None) -> list[PoolStats]:
    """Of one alias or of every alias that has a pool. No server is asked and nothing is opened."""
    aliases = list(connections) if alias is None else [alias]
    found = ((each, _pool(each)) for each in aliases)
    return [_of(each, pool) for each, pool in found if pool is not None]


def families() -> Iterator[Metric]:
    everyone = stats()
    for name, text, attribute in _GAUGES:
        gauge = GaugeMetricFamily(f"brain_database_pool_{name}", text, labels=["alias"])
        for one in everyone:
            gauge.add_metric([one.alias], getattr(one, attribute))
        yield gauge
    for name, text, attribute, unit in _COUNTERS:
        counter = CounterMetricFamily(f"brain_database_pool_{name}", text, labels=["alias"])
        for one in everyone:
            counter.add_metric([one.alias], getattr(one, attribute) * unit)
        yield counter


_MS = 0.001
_GAUGES = (
    ("max_connections", "Connections that this process may have", "max_size"),
    ("connections", "Connections that this process has, idle ones too", "size"),
    ("in_use", "Connections that are lent", "in_use"),
    ("waiting", "Callers that wait for a connection", "waiting"),
)
_COUNTERS = (
    ("requests", "Connections asked for", "requests_num", 1),
    ("requests_queued", "Requests that had to wait", "queued_num", 1),
    ("requests_failed", "Requests that got no connection in time", "errors_num", 1),
    ("wait_seconds", "Time that requests have waited", "wait_ms", _MS),
    ("usage_seconds", "Time that connections were lent", "usage_ms", _MS),
    ("connects", "Attempts to connect", "connections_num", 1),
    ("connects_failed", "Attempts to connect that failed", "connections_errors", 1),
    ("lost", "Connections found dead", "lost_num", 1),
    ("returned_bad", "Connections given back broken", "bad_num", 1),
    ("returned_dirty", "Connections closed because their session was changed (MySQL)", "dirty_num", 1),
)


def _pool(alias: str) -> Any:
    """None for a database without one. MongoDB's client is its own pool, and tells nobody about it."""
    return getattr(connections[alias], "pool", None)


def _of(alias: str, pool: Any) -> PoolStats:
    # psycopg_pool leaves out what it has not counted yet.
    counted: dict[str, int] = pool.get_stats()

    def of(name: str) -> int:
        return int(counted.get(name, 0))

    return PoolStats(
        alias=alias,
        engine=connections[alias].vendor,
        min_size=of("pool_min"),
        max_size=of("pool_max"),
        size=of("pool_size"),
        available=of("pool_available"),
        waiting=of("requests_waiting"),
        requests_num=of("requests_num"),
        queued_num=of("requests_queued"),
        wait_ms=of("requests_wait_ms"),
        errors_num=of("requests_errors"),
        usage_ms=of("usage_ms"),
        connections_num=of("connections_num"),
        connections_errors=of("connections_errors"),
        lost_num=of("connections_lost"),
        bad_num=of("returns_bad"),
        dirty_num=of("returns_dirty"),
    )
