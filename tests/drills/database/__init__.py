"""The database's drills: each breaks one thing on purpose while transactions, requests or migrations go on.

    families (restarts, exhaustion, deadlocks, banks, isolation, migrations, disks, replicas) → rig (server, workers) → verdict (what was promised, against the rows)

A drill is a process of its own with a server of its own. ../README.md says how to run and read them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from tests.drills import runner
from tests.drills.outcome import Outcome
from tests.drills.plain import Drill

from .drill import DRILLS

FAMILIES: tuple[str, ...] = (
    "restarts",
    "exhaustion",
    "deadlocks",
    "banks",
    "isolation",
    "migrations",
    "disks",
    "replicas",
)


def load() -> dict[str, Drill]:
    for family in FAMILIES:
        importlib.import_module(f".{family}", __package__)
    return DRILLS


def chosen(only: str | None) -> list[Drill]:
    return runner.chosen(load(), only)


def run(*, only: str | None = None, quick: bool = False) -> Iterator[Outcome]:
    return runner.run(__name__, chosen(only), quick=quick)
