"""`./brain bench database [--only …]`: which figures, and in which size."""

from __future__ import annotations

import argparse
import sys

from benchmarks.choice import some_of
from benchmarks.figures import Figure
from benchmarks.processes import Broken
from tests import servers

from . import pools, query, sqlite

PARTS = {"pools": pools.figures, "sqlite": sqlite.figures, "query": query.figures}
UNEQUAL = (*pools.UNEQUAL, *sqlite.UNEQUAL, *query.UNEQUAL)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only", type=some_of(PARTS), default=tuple(PARTS), metavar="A,B", help=f"some of {', '.join(PARTS)}"
    )


def run(options: argparse.Namespace) -> list[Figure]:
    found: list[Figure] = []
    with servers.scratch("bench") as folder:
        for name in options.only:
            print(f"{name} …", file=sys.stderr, flush=True)
            found += PARTS[name](folder, quick=options.quick)
    if not found:
        raise Broken("there is not one figure")
    return found
