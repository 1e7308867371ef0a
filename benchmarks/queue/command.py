"""`./brain bench queue [--only …] [--peers …]`: which figures, against whom, and in which size."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks.choice import some_of
from benchmarks.figures import Figure
from benchmarks.processes import Broken

from . import backlog, drain, enqueue, idle, latency, pages, replay, rollups
from .plan import FULL, QUICK, Plan, say
from .sides import PEER_NAMES, UNEQUAL
from .stage import stage

__all__ = ["UNEQUAL", "add_options", "run"]

FIGURES: dict[str, Callable[[Plan], list[Figure]]] = {
    "drain": drain.figures,
    "enqueue": enqueue.figures,
    "latency": latency.figures,
    "idle": idle.figures,
    "backlog": backlog.figures,
    "pages": pages.figures,
    "rollups": rollups.figures,
    "replay": replay.figures,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only", type=some_of(FIGURES), default=tuple(FIGURES), help=f"some of {', '.join(FIGURES)}"
    )
    parser.add_argument(
        "--peers",
        type=some_of(PEER_NAMES),
        help=f"some of {', '.join(PEER_NAMES)}; by default all, with --quick celery alone",
    )


def run(options: argparse.Namespace) -> list[Figure]:
    size = QUICK if options.quick else FULL
    peers = options.peers or (("celery",) if options.quick else PEER_NAMES)
    with stage() as up:
        plan = Plan(size, peers, up, goals_only=options.quick and not options.peers)
        found = [figure for name in options.only for figure in FIGURES[name](plan)]
    for note in plan.notes:
        say(f"left out: {note}")
    if not found:
        raise Broken("there is not one figure")
    return found
