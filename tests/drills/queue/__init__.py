"""The queue's drills: each breaks one thing on purpose while jobs run, on servers and workers of its own.

    families (kills, poison, stops, brokers, databases, …) → rig (servers, workers) → verdict (what became of every id)

A drill is a process of its own: its Django has a database and a broker that nobody else has. README.md says how to run
and read them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from tests.drills import runner
from tests.drills.outcome import Outcome

from .drill import DRILLS, Drill

FAMILIES = (
    "kills",
    "poison",
    "stops",
    "brokers",
    "failover",
    "databases",
    "clocks",
    "schedules",
    "moments",
    "limits",
    "fleets",
    "pauses",
    "flows",
    "versions",
)


def load() -> dict[str, Drill]:
    for family in FAMILIES:
        importlib.import_module(f".{family}", __package__)
    return DRILLS


def chosen(only: str | None) -> list[Drill]:
    return runner.chosen(load(), only)


def run(*, only: str | None = None, quick: bool = False) -> Iterator[Outcome]:
    return runner.run(__name__, chosen(only), quick=quick)
