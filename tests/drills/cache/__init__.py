"""The cache's drills: each breaks one thing on purpose while processes read, write, load and lock.

    families (stores, tiers, clusters, processes, files) → rig (servers, callers) → verdict (what they saw, against what was acknowledged)

A drill is a process of its own with servers of its own. ../README.md says how to run and read them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from tests.drills import runner
from tests.drills.outcome import Outcome
from tests.drills.plain import Drill

from .drill import DRILLS

FAMILIES = ("stores", "tiers", "clusters", "processes", "files")


def load() -> dict[str, Drill]:
    for family in FAMILIES:
        importlib.import_module(f".{family}", __package__)
    return DRILLS


def chosen(only: str | None) -> list[Drill]:
    return runner.chosen(load(), only)


def run(*, only: str | None = None, quick: bool = False) -> Iterator[Outcome]:
    return runner.run(__name__, chosen(only), quick=quick)
