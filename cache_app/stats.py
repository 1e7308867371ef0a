"""What `@cached` did, counted per function in this process and read by the metrics page at scrape time."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily

EVENTS = {
    "hits": "Calls answered from the cache",
    "misses": "Calls that found nothing in the cache",
    "coalesced": "Misses answered by another caller's load, behind the rebuild lock",
    "loads": "Runs of the loader",
    "load_errors": "Runs of the loader that raised",
    "corrupt": "Entries that could not be read, taken as misses",
    "store_errors": "Calls to Redis that failed",
    "lock_timeouts": "Callers that waited for a rebuild in vain and loaded themselves",
}
_guard = threading.Lock()
_counts: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(EVENTS, 0))


def count(function: str, event: str) -> None:
    with _guard:  # `+= 1` is a read and a write: without the lock threads lose counts
        _counts[function][event] += 1


def of(function: str) -> dict[str, int]:
    with _guard:
        return dict(_counts[function])


def snapshot() -> dict[str, dict[str, int]]:
    """{function: {event: count}}, of this process since it started."""
    with _guard:
        return {function: dict(events) for function, events in sorted(_counts.items())}


def families() -> Iterator[Metric]:
    counts = snapshot()
    for event, text in EVENTS.items():
        family = CounterMetricFamily(f"brain_cache_{event}", text, labels=["function"])
        for function, events in counts.items():
            family.add_metric([function], events[event])
        yield family
