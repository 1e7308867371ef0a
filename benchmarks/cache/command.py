"""`./brain bench cache [--only …]`: which figures, and in which size."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.choice import some_of
from benchmarks.environments import Unavailable
from benchmarks.figures import Figure
from benchmarks.processes import Broken
from tests import servers

from . import down, hit_ratio, loaders, locks, plain, tiers

UNEQUAL = (
    "Ours counts hits, misses, bytes and latencies in every call; django-redis, Django and cashews count nothing.",
    "django-redis and Django pickle the 100 B value, ours is JSON; for 10 kB django-redis has its JSON serializer.",
    "The peers' connection pools are made large enough for every caller; ours waits for one of its 50.",
    "cashews' and aiocache's stampede protection over processes is switched on, which is not their default.",
    "theine and cachetools are memory alone: no Django API, no key prefix, no statistics, and no copy.",
    "Client, server and sides share one machine: compare inside a pair, never between two runs.",
)
Part = Callable[..., Iterator[Figure]]
PARTS: dict[str, Part] = {
    "sync": plain.sync,
    "async": plain.asynchronous,
    "memory": plain.memory,
    "tiers": tiers.tiers,
    "loaders": loaders.stampede,
    "increments": loaders.increments,
    "down": down.down,
    "locks": locks.figures,
    "hits": hit_ratio.figures,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only", type=some_of(PARTS), default=tuple(PARTS), metavar="A,B", help=f"some of {', '.join(PARTS)}"
    )


def run(options: argparse.Namespace) -> list[Figure]:
    found: list[Figure] = []
    with servers.scratch("bench") as folder:
        for name in options.only:
            print(f"{name} …", file=sys.stderr, flush=True)
            with servers.valkey(port=servers.free_port(), appendonly=False) as url:
                found += _attempt(name, url, folder, quick=options.quick)
    if not found:
        raise Broken("there is not one figure")
    return found


def _attempt(name: str, url: str, folder: Path, *, quick: bool) -> list[Figure]:
    found: list[Figure] = []
    try:
        for figure in PARTS[name](url, folder, quick=quick):
            found.append(figure)
    except Unavailable as error:
        print(f"left out of {name}: {error}", file=sys.stderr)
    return found
