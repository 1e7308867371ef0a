"""What one process counts, on the path of every request: plain dicts and lists, which metrics.py and traffic.py read.

Each label has a bounded set of values. Routes, services, targets and plans come from the configuration, and what left
it becomes "retired" after a while; an unusual method is "other"; past `max_series` whatever is new is counted under
"other" altogether, and `folded` says how often.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeVar

from .latency import BUCKETS_S, FINE_S, OVERHEAD_BUCKETS_S
from .routing import ANY_METHOD

UNROUTED = "unrouted"  # the route of requests that no route matched
OTHER = "other"
RETIRED = "retired"
MAX_SERIES = 10_000
RETIRED_AFTER_S = 3600.0

Key = tuple[str, str, str, str, int, str]
"""Route, service, target, method, class of status (2 for 2xx, 0 for what is none), plan."""
Times = list[float]
"""Counts by bucket, then the seconds in all."""
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Names:
    """What the configuration holds now."""

    routes: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    targets: frozenset[str] = frozenset()


class Cell:
    """The requests of one key, and the bytes of their bodies. The histograms are shared with other keys."""

    __slots__ = ("count", "overhead", "received", "sent", "times", "upstream")

    def __init__(self, times: Times, overhead: Times, upstream: Times | None) -> None:
        self.count = self.received = self.sent = 0
        self.times, self.overhead, self.upstream = times, overhead, upstream


class Tally:
    """times: by route in FINE_S. overhead: by service in OVERHEAD_BUCKETS_S. upstream: by service and target in
    BUCKETS_S."""

    def __init__(self, *, max_series: int = MAX_SERIES) -> None:
        self.cells: dict[Key, Cell] = {}
        self.times: dict[str, Times] = {}
        self.overhead: dict[str, Times] = {}
        self.upstream: dict[tuple[str, str], Times] = {}
        self.rate_limited: dict[str, int] = {}
        self.retries: dict[str, int] = {}
        self.retries_denied: dict[str, int] = {}
        self.panics: dict[str, int] = {}
        self.refusals: dict[str, int] = {}
        self.plugin_failures: dict[str, int] = {}
        self.upstream_errors: dict[tuple[str, str], int] = {}
        self.stale: dict[tuple[str, str], int] = {}
        self.ejections: dict[tuple[str, str], int] = {}
        self.unedited: dict[tuple[str, str], int] = {}
        self.store_failures = self.tunnels = self.tunnels_opened = self.folded = 0
        self._max_series = max_series
        self._found: dict[Key, Cell] = {}  # by the callers' spelling of a key, where "" is no route
        self._gone: dict[tuple[str, str], float] = {}

    # --- on the path of a request ---

    def finished(
        self,
        route: str,
        service: str,
        target: str,
        method: str,
        status: int,
        plan: str,
        total_s: float,
        upstream_s: float,
        received_bytes: int = 0,
        sent_bytes: int = 0,
    ) -> None:
        """Once a request. target: the one that answered, "" for an answer of our own. upstream_s: the part of total_s that
        was spent on it. The bytes are of the bodies: received from the client, sent to it."""
        cell = self._found.get((route, service, target, method, status // 100, plan))
        if cell is None:
            cell = self._cell(route, service, target, method, status // 100, plan)
        cell.count += 1
        times = cell.times
        times[bisect_left(FINE_S, total_s)] += 1
        times[-1] += total_s
        overhead, own_s = cell.overhead, total_s - upstream_s
        overhead[bisect_left(OVERHEAD_BUCKETS_S, own_s)] += 1
        overhead[-1] += own_s
        upstream = cell.upstream
        if upstream is not None:
            upstream[bisect_left(BUCKETS_S, upstream_s)] += 1
            upstream[-1] += upstream_s
        if received_bytes:
            cell.received += received_bytes
        if sent_bytes:
            cell.sent += sent_bytes

    def limited(self, route: str) -> None:
        try:
            self.rate_limited[route] += 1
        except KeyError:
            self._first(self.rate_limited, route, OTHER)

    def refused(self, reason: str) -> None:
        try:
            self.refusals[reason] += 1
        except KeyError:
            self._first(self.refusals, reason, OTHER)

    def retried(self, service: str) -> None:
        try:
            self.retries[service] += 1
        except KeyError:
            self._first(self.retries, service, OTHER)

    def retry_denied(self, service: str) -> None:
        """The retry budget was spent."""
        try:
            self.retries_denied[service] += 1
        except KeyError:
            self._first(self.retries_denied, service, OTHER)

    def upstream_failed(self, target: str, reason: str) -> None:
        """reason: one of a few words, as connect, tls, timeout, reset, 5xx."""
        try:
            self.upstream_errors[target, reason] += 1
        except KeyError:
            self._first(self.upstream_errors, (target, reason), (OTHER, OTHER))

    def answered_stale(self, route: str, reason: str) -> None:
        """A target's answer from before was given, as none answered now. reason: as for upstream_failed, or no_target."""
        try:
            self.stale[route, reason] += 1
        except KeyError:
            self._first(self.stale, (route, reason), (OTHER, OTHER))

    def ejected(self, service: str, target: str) -> None:
        try:
            self.ejections[service, target] += 1
        except KeyError:
            self._first(self.ejections, (service, target), (OTHER, OTHER))

    def panicked(self, service: str) -> None:
        """So few of its targets were healthy that a request went to one that was not."""
        try:
            self.panics[service] += 1
        except KeyError:
            self._first(self.panics, service, OTHER)

    def plugin_failed(self, plugin: str) -> None:
        try:
            self.plugin_failures[plugin] += 1
        except KeyError:
            self._first(self.plugin_failures, plugin, OTHER)

    def untouched(self, route: str, why: str) -> None:
        """A response's body went on as it was, though it should have been edited. why: one of a few words."""
        try:
            self.unedited[route, why] += 1
        except KeyError:
            self._first(self.unedited, (route, why), (OTHER, OTHER))

    def store_failed(self) -> None:
        """The limiter's store did not answer."""
        self.store_failures += 1

    def tunnel_opened(self) -> None:
        self.tunnels += 1
        self.tunnels_opened += 1

    def tunnel_closed(self) -> None:
        self.tunnels -= 1

    # --- when a key is new ---

    @property
    def series(self) -> int:
        """How many a scrape has of what is counted here. A histogram has its bounds, +Inf, a sum and a count."""
        return (
            len(self.cells)
            + (len(BUCKETS_S) + 5) * len(self.times)  # and the bytes in and out
            + (len(OVERHEAD_BUCKETS_S) + 3) * len(self.overhead)
            + (len(BUCKETS_S) + 3) * len(self.upstream)
            + len(self.rate_limited) + len(self.retries) + len(self.retries_denied) + len(self.panics) + len(self.refusals)
            + len(self.plugin_failures) + len(self.upstream_errors) + len(self.ejections) + len(self.unedited)
            + len(self.stale)
        )  # fmt: skip

    def _first(self, counts: dict[K, int], key: K, other: K) -> None:
        if self.series >= self._max_series:
            self.folded += 1
            key = other
        counts[key] = counts.get(key, 0) + 1

    def _cell(self, route: str, service: str, target: str, method: str, kind: int, plan: str) -> Cell:
        # A method that a client made up must not become a label of its own, nor an entry of `_found`.
        known = method if method in ANY_METHOD else OTHER
        key = (route or UNROUTED, service, target, known, kind if 1 <= kind <= 5 else 0, plan)
        cell = self.cells.get(key)
        if cell is None and self.series + self._cost(key) > self._max_series:
            self.folded += 1
            other = (OTHER, OTHER, target and OTHER, OTHER, key[4], OTHER)
            return self.cells.get(other) or self._made(other)
        cell = cell or self._made(key)
        if known == method:
            self._found[route, service, target, method, kind, plan] = cell
        return cell

    def _made(self, key: Key) -> Cell:
        route, service, target = key[:3]
        cell = self.cells[key] = Cell(
            self.times.setdefault(route, [0] * (len(FINE_S) + 2)),
            self.overhead.setdefault(service, [0] * (len(OVERHEAD_BUCKETS_S) + 2)),
            self.upstream.setdefault((service, target), [0] * (len(BUCKETS_S) + 2)) if target else None,
        )
        return cell

    def _cost(self, key: Key) -> int:
        """Series that this key would add."""
        route, service, target = key[:3]
        return (
            1
            + (route not in self.times) * (len(BUCKETS_S) + 5)
            + (service not in self.overhead) * (len(OVERHEAD_BUCKETS_S) + 3)
            + (bool(target) and (service, target) not in self.upstream) * (len(BUCKETS_S) + 3)
        )

    # --- when the configuration changes ---

    def retire(self, names: Names, now: float) -> None:
        """Let the figures of what has been out of the configuration for RETIRED_AFTER_S become "retired". now: monotonic.

        The counts move: a rate over "retired" jumps then, while a sum over everything goes neither up nor down.
        """
        listed = {("route", n) for n in names.routes} | {("service", n) for n in names.services}
        gone = self._used() - listed - {("target", n) for n in names.targets}
        self._gone = {name: self._gone.get(name, now) for name in gone}
        ripe = {name for name, since in self._gone.items() if now - since >= RETIRED_AFTER_S}
        if ripe:
            self._rename(lambda kind, name: RETIRED if (kind, name) in ripe else name)

    def _used(self) -> set[tuple[str, str]]:
        """("route" or "service" or "target", its name)"""
        found = {(kind, name) for key in self.cells for kind, name in zip(_KINDS, key[:3], strict=True)}
        found |= {
            ("route", route)
            for route in (*self.rate_limited, *(route for route, _ in (*self.unedited, *self.stale)))
        }
        found |= {("service", service) for service in (*self.retries, *self.retries_denied, *self.panics)}
        found |= {("target", target) for target, _ in self.upstream_errors}
        found |= {(kind, name) for key in self.ejections for kind, name in zip(_KINDS[1:], key, strict=True)}
        return {name for name in found if name[1] not in ("", UNROUTED, OTHER, RETIRED)}

    def _rename(self, named: Callable[[str, str], str]) -> None:
        def route(key: str) -> str:
            return named("route", key)

        def service(key: str) -> str:
            return named("service", key)

        def pair(key: tuple[str, str]) -> tuple[str, str]:
            return service(key[0]), named("target", key[1])

        self.times = _added(self.times, route)
        self.overhead = _added(self.overhead, service)
        self.upstream = _added(self.upstream, pair)
        self.rate_limited = _summed(self.rate_limited, route)
        self.retries = _summed(self.retries, service)
        self.retries_denied = _summed(self.retries_denied, service)
        self.panics = _summed(self.panics, service)
        self.upstream_errors = _summed(self.upstream_errors, lambda key: (named("target", key[0]), key[1]))
        self.ejections = _summed(self.ejections, pair)
        self.unedited = _summed(self.unedited, lambda key: (route(key[0]), key[1]))
        self.stale = _summed(self.stale, lambda key: (route(key[0]), key[1]))
        cells, self.cells, self._found = self.cells, {}, {}
        for key, cell in cells.items():
            renamed = (route(key[0]), *pair(key[1:3]), *key[3:])
            kept = self.cells.get(renamed) or self._made(renamed)
            kept.count += cell.count
            kept.received += cell.received
            kept.sent += cell.sent


_KINDS = ("route", "service", "target")


def _summed(counts: dict[K, int], named: Callable[[K], K]) -> dict[K, int]:
    found: dict[K, int] = {}
    for key, count in counts.items():
        found[named(key)] = found.get(named(key), 0) + count
    return found


def _added(times: dict[K, Times], named: Callable[[K], K]) -> dict[K, Times]:
    found: dict[K, Times] = {}
    for key, counts in times.items():
        known = found.get(named(key))
        found[named(key)] = [a + b for a, b in zip(known, counts, strict=True)] if known else counts
    return found
