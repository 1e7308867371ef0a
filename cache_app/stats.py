"""What the cache did in this process, by alias and namespace: counted without a lock, read by pages and Prometheus.

stats_store adds the counts of all processes up. A process that was forked starts at zero.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count as ticker

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from . import latencies
from .latencies import Latencies

EVENTS = {
    "hits_l1": "Reads answered from this process's memory",
    "hits_l2": "Reads answered by Redis or files",
    "misses": "Reads that found nothing",
    "stale": "Answers that were past their time to live",
    "loads": "Runs of a loader",
    "load_errors": "Runs of a loader that raised",
    "coalesced": "Misses answered by another caller's load",
    "refreshes": "Loads ahead of expiry or in the background",
    "soft_timeouts": "Loads that went on in the background while the caller got a stale value",
    "hard_timeouts": "Loads that a caller gave up on",
    "sets": "Entries written",
    "deletes": "Entries deleted",
    "invalidations": "Tags and namespaces invalidated",
    "bytes_read": "Bytes of entries read from the store",
    "bytes_written": "Bytes of entries written to the store",
    "evictions": "Entries removed to make room",
    "expired": "Entries removed because their time was over",
    "corrupt": "Entries that could not be read, taken as misses",
    "store_errors": "Calls that the store failed or refused",
    "lock_timeouts": "Callers that waited for a lock in vain",
    "tracker_losses": "Times the connection that keeps memory right was lost",
}
MAX_NAMESPACES = 1_000  # per alias; further ones are counted together, as OTHER
OTHER = "other"
_FOLD_AT = 256  # readings kept aside before they are added up

Events = dict[str, int]
Operations = dict[str, Latencies]

_guard = threading.Lock()
_counts: dict[tuple[str, str], Counts] = {}
_namespaces: dict[str, int] = {}
_begun = False  # whether this process has counted anything yet
_beginners: list[Callable[[], None]] = []


class Counts:
    """The counts of one alias and namespace. Keep it: looking it up costs more than counting."""

    __slots__ = ("_amounts", "_durations", "_operations", "_sums", "_ticks", "alias", "namespace")

    def __init__(self, alias: str, namespace: str) -> None:
        self.alias, self.namespace = alias, namespace
        self._ticks: dict[str, ticker[int]] = {}
        self._amounts: dict[str, deque[float]] = {}
        self._durations: dict[str, deque[float]] = {}
        self._sums: dict[str, int] = {}
        self._operations: dict[str, Latencies] = {}

    def add(self, event: str, n: int = 1) -> None:
        """ValueError for an event that is not in EVENTS."""
        if n == 1:
            try:
                # One step of C code: no thread comes between. `+= 1` is a read and a write, and a lock costs three of this.
                next(self._ticks[event])
            except KeyError:
                _begin()
                next(self._ticks.setdefault(_known(event), ticker()))
            return
        readings = self._amounts.get(event)
        if readings is None:
            _begin()
            readings = self._amounts.setdefault(_known(event), deque())
        readings.append(n)
        if len(readings) > _FOLD_AT:
            self._fold(wait=False)

    def took(self, operation: str, seconds: float) -> None:
        """operation: "get", "set" … a fixed handful: each is a label."""
        readings = self._durations.get(operation)
        if readings is None:
            _begin()
            readings = self._durations.setdefault(operation, deque())
        readings.append(seconds)
        if len(readings) > _FOLD_AT:
            self._fold(wait=False)

    def events(self) -> Events:
        """{event: n}, those that happened."""
        self._fold()
        found = {event: _ticked(tick) for event, tick in list(self._ticks.items())}
        for event, n in list(self._sums.items()):
            found[event] = found.get(event, 0) + n
        return {event: n for event, n in found.items() if n}

    def operations(self) -> Operations:
        """{operation: its durations}"""
        self._fold()
        return {operation: histogram.copy() for operation, histogram in list(self._operations.items())}

    def forget(self) -> None:
        """Back to zero, for a forked child and for tests."""
        for kept in (self._ticks, self._amounts, self._durations, self._sums, self._operations):
            kept.clear()

    def _fold(self, *, wait: bool = True) -> None:
        """Add up the readings that were put aside. Without `wait`, not while somebody else does."""
        if not (any(self._amounts.values()) or any(self._durations.values())):
            return
        if not _guard.acquire(blocking=wait):
            return
        try:
            for event, amounts in list(self._amounts.items()):
                self._sums[event] = self._sums.get(event, 0) + int(sum(_drained(amounts)))
            for operation, durations in list(self._durations.items()):
                histogram = self._operations.setdefault(operation, Latencies())
                histogram.note(_drained(durations))
        finally:
            _guard.release()


def counts(alias: str, namespace: str = "") -> Counts:
    """The process's counts of this alias and namespace; of OTHER, once an alias has MAX_NAMESPACES."""
    found = _counts.get((alias, namespace))
    if found is not None:
        return found
    namespace = namespace.encode(
        "utf-8", "backslashreplace"
    ).decode()  # neither Redis nor Prometheus takes others
    with _guard:
        if namespace and _namespaces.get(alias, 0) >= MAX_NAMESPACES and (alias, namespace) not in _counts:
            namespace = OTHER
        if (alias, namespace) not in _counts:
            _counts[alias, namespace] = Counts(alias, namespace)
            _namespaces[alias] = _namespaces.get(alias, 0) + 1
        return _counts[alias, namespace]


def known() -> list[Counts]:
    """All that were asked for, by alias and namespace."""
    return [kept for _, kept in sorted(_counts.copy().items(), key=lambda item: item[0])]


def snapshot() -> dict[str, dict[str, Events]]:
    """{alias: {namespace: {event: n}}}, of this process since it started; "" is what belongs to no namespace."""
    found: dict[str, dict[str, Events]] = {}
    for kept in known():
        if events := kept.events():
            found.setdefault(kept.alias, {})[kept.namespace] = events
    return found


def durations() -> dict[str, dict[str, Operations]]:
    """{alias: {namespace: {operation: durations}}}, of this process since it started."""
    found: dict[str, dict[str, Operations]] = {}
    for kept in known():
        if operations := kept.operations():
            found.setdefault(kept.alias, {})[kept.namespace] = operations
    return found


def at_first(start: Callable[[], None]) -> None:
    """Call `start` when this process counts for the first time, and again in a forked child that counts."""
    _beginners.append(start)


def families() -> Iterator[Metric]:
    """The counts of this process for Prometheus, which adds processes up itself; and what stands now."""
    from . import gauges  # it stands on the backends, and they on this module

    yield from _counters()
    yield from gauges.families()


def _counters() -> Iterator[Metric]:
    found = snapshot()
    for event, text in EVENTS.items():
        family = CounterMetricFamily(f"brain_cache_{event}", text, labels=["alias", "namespace"])
        for alias, namespaces in found.items():
            for namespace, events in namespaces.items():
                family.add_metric([alias, namespace], events.get(event, 0))
        yield family
    took = HistogramMetricFamily(
        "brain_cache_operation_seconds", "How long operations took", labels=["alias", "operation"]
    )
    for alias, timed in durations().items():
        for operation, histogram in latencies.by_operation(timed.values()).items():
            took.add_metric([alias, operation], histogram.cumulated(), histogram.total_s)
    yield took


def _known(event: str) -> str:
    if event not in EVENTS:
        raise ValueError(f"{event!r} is no event of the cache: use one of {', '.join(EVENTS)}")
    return event


def _begin() -> None:
    global _begun
    if not _begun:
        _begun = True
        for start in _beginners:
            start()


def _ticked(tick: ticker[int]) -> int:
    # The one way to read a ticker without moving it that Python does not take away: "count(42)".
    return int(repr(tick)[6:-1])


def _drained(readings: deque[float]) -> list[float]:
    return [readings.popleft() for _ in range(len(readings))]


def _forked() -> None:
    """In a child: the parent goes on counting what it counted, and a thread that held the lock does not exist here."""
    global _guard, _begun
    _guard, _begun = threading.Lock(), False
    for kept in list(_counts.values()):
        kept.forget()


os.register_at_fork(after_in_child=_forked)
