"""`./brain bench gateway [--only …] [--peers …]`: which figures, against whom, and in which size."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

from benchmarks.choice import some_of
from benchmarks.figures import Figure
from benchmarks.processes import Broken

from . import admission, binaries, bodies, differing, door, everything, exact, latency, routes, tokens
from .ground import ground
from .plan import FULL, QUICK, Plan, say
from .sides import PEER_NAMES, UNEQUAL

__all__ = ["UNEQUAL", "add_options", "run"]

FIGURES: dict[str, Callable[[Plan], list[Figure]]] = {
    everything.PART: everything.figures,
    differing.PART: differing.figures,
    door.PART: door.figures,
    tokens.PART: tokens.figures,
    exact.PART: exact.figures,
    latency.PART: latency.figures,
    routes.PART: routes.figures,
    bodies.PART: bodies.figures,
    admission.PART: admission.figures,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only", type=some_of(FIGURES), default=tuple(FIGURES), help=f"some of {', '.join(FIGURES)}"
    )
    parser.add_argument(
        "--peers", type=some_of(PEER_NAMES), default=PEER_NAMES, help=f"some of {', '.join(PEER_NAMES)}"
    )


def run(options: argparse.Namespace) -> list[Figure]:
    if not (binaries.wrk() or binaries.h2load()):
        raise binaries.generator_missing()
    with ground() as where:
        plan = Plan(QUICK if options.quick else FULL, options.peers, where)
        found = [
            figure for name in options.only for figure in plan.attempt(name, partial(FIGURES[name], plan))
        ]
    for note in plan.notes:
        say(f"left out: {note}")
    if not found:
        raise Broken("there is not one figure")
    return found
