"""What stands now, for Prometheus: how much memory and files hold, which breakers are open, which trackers are heard."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from . import operations, standing


def families() -> Iterator[Metric]:
    """Of this process, and of the files of this machine. No server is asked."""
    entries = GaugeMetricFamily("brain_cache_held_entries", "Entries in memory or files", labels=["alias"])
    size = GaugeMetricFamily("brain_cache_held_bytes", "Bytes in memory or files", labels=["alias"])
    breaker = GaugeMetricFamily(
        "brain_cache_breaker_open", "1: the server failed and is not asked", labels=["alias", "server"]
    )
    tracker = GaugeMetricFamily(
        "brain_cache_tracker_heard",
        "1: the server says what changes, and memory is used",
        labels=["alias", "server"],
    )
    for alias in operations.aliases():
        cache = operations.cache_of(alias)
        try:
            with operations.asking():
                held = standing.held_of(cache)
        except operations.CacheUnavailable:
            held = None
        if held is not None:
            entries.add_metric([alias], held.entries)
            size.add_metric([alias], held.size_bytes)
        for server, state in standing.breakers_of(cache).items():
            breaker.add_metric([alias, server], float(state != "closed"))
        for server, is_heard in (standing.tracker_of(cache) or {}).items():
            tracker.add_metric([alias, server], float(is_heard))
    yield from (entries, size, breaker, tracker)
