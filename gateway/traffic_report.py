"""What the gateway's traffic was: the counts of minutes or hours → sums by route, by consumer and over time.

A latency is known by route only. Its percentiles are off by at most latency.ERROR (14.3 %), usually by a fifth of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .latency import FINE_S, QUANTILES, quantiles

OTHER = "other"  # consumers and routes that are too many to be told apart
ANONYMOUS = "anonymous"
CLASSES = ("2xx", "3xx", "4xx", "5xx")  # what charts show; 1xx and nonsense are in the requests only
SHARES = tuple(f"p{share * 100:.0f}" for share in QUANTILES)
Field = tuple[str, str, int]
"""Route, consumer, class of status (0 to 5)."""


class Step(NamedTuple):
    """One minute or hour as it is stored. at: its beginning, seconds since the epoch. times: route → bucket → requests."""

    at: int
    counts: Mapping[Field, int]
    times: Mapping[str, Mapping[int, int]]


@dataclass(slots=True)
class Sums:
    """by_class: requests by class of status, from 0. times: requests by FINE_S."""

    by_class: list[int] = field(default_factory=lambda: [0] * 6)
    times: list[int] = field(default_factory=lambda: [0] * (len(FINE_S) + 1))

    @property
    def requests(self) -> int:
        return sum(self.by_class)

    @property
    def errors(self) -> int:
        """Answers of 5xx, the gateway's own among them."""
        return self.by_class[5]

    @property
    def error_ratio(self) -> float | None:
        """0 to 1; None of no requests."""
        return self.errors / self.requests if self.requests else None

    @property
    def quantiles_s(self) -> tuple[float | None, ...]:
        """p50, p95 and p99; each is None where no latency is known."""
        return quantiles(self.times)


class Report(NamedTuple):
    """points: (beginning of a step, its sums), without gaps. routes, consumers: the busiest first."""

    step_s: int
    points: list[tuple[int, Sums]]
    routes: list[tuple[str, Sums]]
    consumers: list[tuple[str, Sums]]
    total: Sums


def report(steps: Iterable[Step], step_s: int, *, route: str = "", consumer: str = "") -> Report:
    """Of one route, one consumer, or both, where they are named. A consumer's latency is not known."""
    points, routes, consumers, total = [], dict[str, Sums](), dict[str, Sums](), Sums()
    for step in steps:
        point = Sums()
        points.append((step.at, point))
        for (of_route, of_consumer, kind), count in step.counts.items():
            if route in ("", of_route) and consumer in ("", of_consumer):
                by_route = routes.setdefault(of_route, Sums())
                by_consumer = consumers.setdefault(of_consumer, Sums())
                for sums in (point, total, by_route, by_consumer):
                    sums.by_class[kind] += count
        for of_route, buckets in step.times.items():
            if route in ("", of_route) and not consumer:
                by_route = routes.setdefault(of_route, Sums())
                for bucket, count in buckets.items():
                    for sums in (point, total, by_route):
                        sums.times[min(bucket, len(FINE_S))] += count
    return Report(step_s, points, _busiest(routes), _busiest(consumers), total)


def _busiest(named: Mapping[str, Sums]) -> list[tuple[str, Sums]]:
    return sorted(named.items(), key=lambda item: (-item[1].requests, item[0]))


def charts(found: Report) -> list[dict[str, Any]]:
    """As static/brain/charts.js draws them: each {id, title, kind, unit, lines: [{name, values}], told}.

    kind: "bars", which are stacked, or "lines". unit: "count", "share" or "seconds". A step without a value has None.
    """
    sums = [point for _, point in found.points]
    total, quantiles_s = found.total, [point.quantiles_s for point in sums]
    by_class = [_line(name, [point.by_class[kind] for point in sums]) for kind, name in enumerate(CLASSES, 2)]
    latency = [_line(name, [point[at] for point in quantiles_s]) for at, name in enumerate(SHARES)]
    errors = [_line("errors", [point.error_ratio for point in sums])]
    counted = f"{total.requests} requests"
    told = ", ".join(
        f"{name} {'none' if value is None else f'{value * 1000:.3g} ms'}"
        for name, value in zip(SHARES, total.quantiles_s, strict=True)
    )
    failed = f"{total.errors} of {counted} failed."
    return [
        _chart("requests", "Requests", "bars", "count", by_class, f"{counted}."),
        _chart("latency", "Latency", "lines", "seconds", latency, f"In all {told}."),
        _chart("errors", "Errors (5xx)", "lines", "share", errors, failed),
    ]


def _line(name: str, values: list[Any]) -> dict[str, Any]:
    return {"name": name, "values": [None if v is None else float(f"{v:.4g}") for v in values]}


def _chart(
    id_: str, title: str, kind: str, unit: str, lines: list[dict[str, Any]], told: str
) -> dict[str, Any]:
    return {"id": id_, "title": title, "kind": kind, "unit": unit, "lines": lines, "told": told}
