"""The gateway's figures: counted in plain dicts on the hot path, turned into Prometheus metrics when they are
scraped.

Each worker of the edge counts for itself and publishes its figures as a file in a directory that the workers
share; the one that is scraped sums them up. A worker that ended leaves its counts behind, as counters never
go back.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from .breaker import CLOSED, HALF_OPEN, OPEN
from .pipeline import Target
from .routing import ANY_METHOD

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
UNROUTED = "unrouted"  # the label of requests that no route matched
_BREAKER_VALUE = {CLOSED: 0, HALF_OPEN: 1, OPEN: 2}


@dataclass(slots=True)
class Tally:
    """One process's counts. requests: (route, method, status class). latency: route → counts a bucket, then
    the sum."""

    requests: dict[tuple[str, str, str], int] = field(default_factory=lambda: defaultdict(int))
    latency: dict[str, list[float]] = field(default_factory=dict)
    rate_limited: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    upstream_errors: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def finished(self, route: str, method: str, status: int, duration_s: float) -> None:
        route = route or UNROUTED
        # A method that a client made up must not become a label of its own.
        known = method if method in ANY_METHOD else "other"
        self.requests[route, known, f"{status // 100}xx"] += 1
        counts = self.latency.get(route)
        if counts is None:
            counts = self.latency[route] = [0.0] * (len(BUCKETS_S) + 2)
        counts[bisect_left(BUCKETS_S, duration_s)] += 1
        counts[-1] += duration_s

    def limited(self, route: str) -> None:
        self.rate_limited[route] += 1

    def upstream_failed(self, target: str) -> None:
        self.upstream_errors[target] += 1


def figures(tally: Tally, targets: Iterable[Target], snapshot_version: int) -> dict[str, Any]:
    """What one worker publishes, as JSON types. The gauges hold only while its process lives."""
    return {
        "pid": os.getpid(),
        "requests": [[*key, count] for key, count in list(tally.requests.items())],
        "latency": {route: list(counts) for route, counts in list(tally.latency.items())},
        "rate_limited": dict(tally.rate_limited),
        "upstream_errors": dict(tally.upstream_errors),
        "targets": [[t.name, t.inflight, _BREAKER_VALUE[t.breaker.state]] for t in targets],
        "snapshot_version": snapshot_version,
    }


def publish(directory: Path, mine: dict[str, Any]) -> None:
    """Write this worker's figures so that a reader sees the old or the new ones, never half."""
    path = directory / f"{mine['pid']}.json"
    fresh = path.with_suffix(".new")
    fresh.write_bytes(orjson.dumps(mine))
    os.replace(fresh, path)


def gather(directory: Path | None, mine: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of all workers, this one's as they are now; the others' at most METRICS_PUBLISH_S old."""
    everyone = [mine]
    for path in sorted(directory.glob("*.json")) if directory is not None else ():
        if path.stem != str(mine["pid"]):
            with contextlib.suppress(OSError, ValueError):
                everyone.append(orjson.loads(path.read_bytes()))
    return everyone


def render(everyone: list[dict[str, Any]]) -> bytes:
    """The Prometheus text format (0.0.4)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(list(families(everyone))))
    return generate_latest(registry)


@dataclass(slots=True, eq=False)
class _Collector:
    metrics: list[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def families(everyone: list[dict[str, Any]]) -> Iterator[Metric]:
    """The figures of all workers as one set of Prometheus metrics."""
    requests = CounterMetricFamily(
        "brain_gateway_requests",
        "Requests, by route, method and class of status.",
        labels=["route", "method", "status"],
    )
    for key, count in _summed((tuple(row[:3]), row[3]) for f in everyone for row in f["requests"]).items():
        requests.add_metric(list(key), count)
    yield requests
    yield _latency(everyone)
    for name, help_text, source, label in (
        ("brain_gateway_rate_limited", "Requests refused by a limit.", "rate_limited", "route"),
        ("brain_gateway_upstream_errors", "Failures of a target to serve.", "upstream_errors", "target"),
    ):
        counter = CounterMetricFamily(name, help_text, labels=[label])
        for value, count in _summed(item for f in everyone for item in f[source].items()).items():
            counter.add_metric([value], count)
        yield counter
    yield from _gauges([f for f in everyone if _lives(f["pid"])])


def _latency(everyone: list[dict[str, Any]]) -> HistogramMetricFamily:
    histogram = HistogramMetricFamily(
        "brain_gateway_request_duration_seconds", "From the first header to the last byte.", labels=["route"]
    )
    total: dict[str, list[float]] = {}
    for f in everyone:
        for route, counts in f["latency"].items():
            known = total.get(route)
            total[route] = [a + b for a, b in zip(known, counts, strict=True)] if known else list(counts)
    for route, counts in total.items():
        running, buckets = 0.0, []
        for bound, count in zip((*BUCKETS_S, float("inf")), counts, strict=False):
            running += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), running))
        histogram.add_metric([route], buckets, counts[-1])
    return histogram


def _gauges(living: list[dict[str, Any]]) -> Iterator[Metric]:
    inflight = GaugeMetricFamily("brain_gateway_inflight", "Requests at a target now.", labels=["target"])
    for name, count in _summed((row[0], row[1]) for f in living for row in f["targets"]).items():
        inflight.add_metric([name], count)
    yield inflight
    breaker = GaugeMetricFamily(
        "brain_gateway_breaker_state",
        "0 closed, 1 half-open, 2 open; each worker has its own.",
        labels=["target", "worker"],
    )
    version = GaugeMetricFamily(
        "brain_gateway_snapshot_version", "The configuration in use.", labels=["worker"]
    )
    for f in living:
        for name, _, state in f["targets"]:
            breaker.add_metric([name, str(f["pid"])], state)
        version.add_metric([str(f["pid"])], f["snapshot_version"])
    yield breaker
    yield version


def _summed(pairs: Iterable[tuple[Any, float]]) -> dict[Any, float]:
    total: dict[Any, float] = defaultdict(float)
    for key, count in pairs:
        total[key] += count
    return total


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
