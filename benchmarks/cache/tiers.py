"""How old what L1 answers can be: measured from the writer's reply, and in a race of four processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import structlog

from benchmarks.figures import Figure, judged

from .sides.brain import configure


def tiers(url: str, folder: Path, *, quick: bool) -> Iterator[Figure]:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is the figures'
    configure(url, "tiers", "cache_app.tiered.TieredCache", {})
    from tests.cache_app import races  # it needs settings

    took = [seconds * 1000 for seconds in races.staleness(200 if quick else 1000, url)]
    middle, late = took[len(took) // 2], took[int(len(took) * 0.99)]
    told = {"brain_tiered": f"p50 {middle:.2f} ms, p99 {late:.2f} ms, worst {took[-1]:.2f} ms"}
    yield judged("L1 after the writer's reply: p99", late, "ms", 5.0, told, at_most=True)
    race = races.run(20_000 if quick else 100_000, 4, url)
    share = race.near / max(race.reads, 1)
    told = {"brain_tiered": f"{race.reads:,} reads, {share:.0%} from L1, {race.writes:,} writes, 4 processes"}
    yield judged("stale reads in the race", race.stale, "reads", 0.0, told, at_most=True)
