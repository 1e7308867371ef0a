"""Counts and durations of an alias or a namespace, and the figures that people read from them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .latencies import Latencies


@dataclass(slots=True)
class Tally:
    """events: as in stats.EVENTS, those that happened; operations: by name ("get", "set" …)."""

    events: dict[str, int] = field(default_factory=dict)
    operations: dict[str, Latencies] = field(default_factory=dict)

    def add(self, more: Tally) -> None:
        for event, n in more.events.items():
            self.events[event] = self.events.get(event, 0) + n
        for operation, histogram in more.operations.items():
            self.operations.setdefault(operation, Latencies()).add(histogram)

    def of(self, event: str) -> int:
        return self.events.get(event, 0)

    @property
    def hits(self) -> int:
        return self.of("hits_l1") + self.of("hits_l2")

    @property
    def lookups(self) -> int:
        return self.hits + self.of("misses")

    @property
    def hit_ratio(self) -> float | None:
        """0 to 1 of the lookups; None of none."""
        return self.hits / self.lookups if self.lookups else None

    @property
    def l1_ratio(self) -> float | None:
        """0 to 1: of the hits, those answered from memory in front of the store."""
        return self.of("hits_l1") / self.hits if self.hits else None

    @property
    def errors(self) -> int:
        return self.of("store_errors") + self.of("corrupt") + self.of("load_errors")

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "events": dict(sorted(self.events.items())),
            "hits": self.hits,
            "lookups": self.lookups,
            "hit_ratio": self.hit_ratio,
            "l1_ratio": self.l1_ratio,
            "operations": {
                name: {"count": histogram.count, "mean_s": histogram.mean_s} | _named(histogram)
                for name, histogram in sorted(self.operations.items())
            },
        }


Tallies = dict[tuple[str, str], Tally]  # by alias and namespace


def summed(tallies: Iterable[Tally]) -> Tally:
    found = Tally()
    for tally in tallies:
        found.add(tally)
    return found


def by_alias(tallies: Mapping[tuple[str, str], Tally]) -> dict[str, Tally]:
    """What belongs to no namespace and all namespaces, added up."""
    found: dict[str, Tally] = {}
    for (alias, _), tally in tallies.items():
        found.setdefault(alias, Tally()).add(tally)
    return found


def _named(histogram: Latencies) -> dict[str, float | None]:
    return {f"{name}_s": seconds for name, seconds in histogram.quantiles().items()}
