"""The gateway's drills: each breaks one thing on purpose while requests go through edges of its own.

    families (targets, workers, stores, reloads, …) → rig (edges, upstreams, load) → verdict (what became of every id)

A drill is a process of its own: its Django has a database and a Valkey that nobody else has. ../README.md says how to run
and read them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from tests.drills import runner
from tests.drills.outcome import Outcome

from .drill import DRILLS, Drill

FAMILIES = ("targets", "workers", "stores", "reloads", "slow", "lies", "revocations", "limits")


def load() -> dict[str, Drill]:
    for family in FAMILIES:
        importlib.import_module(f".{family}", __package__)
    return DRILLS


def chosen(only: str | None) -> list[Drill]:
    return runner.chosen(load(), only)


def run(*, only: str | None = None, quick: bool = False) -> Iterator[Outcome]:
    return runner.run(__name__, chosen(only), quick=quick)
