"""Hit ratios of our two policies, theine and cachetools' LRU on the same sequences of keys.

`python -m benchmarks.cache.hit_ratio [--quick]` prints the table. With `--sides theine,cachetools` it is the part that
runs in the peers' environment, and answers in JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environments import Unavailable, runtime
from benchmarks.figures import Figure, judged
from benchmarks.processes import ROOT

from .traces import REQUESTS, TRACES, trace

SIZES = (500, 2_500)  # entries
OURS, PEERS = ("tinylfu", "lru"), ("theine", "cachetools")
TO_THEINE, TO_LRU = -1.0, -0.5  # points that we may be below them
_LIKE_THEINE = ("Zipf", "Zipf + scans")  # on the others theine itself loses to LRU, and is no measure
_ANSWER_S = 900
Ratios = dict[str, float]  # side → percent
GetAndPut = tuple[Callable[[str], Any], Callable[[str], Any]]  # get: true for a hit


@dataclass(frozen=True, slots=True)
class Row:
    """ratios: percent by side; a side that could not take part is missing."""

    trace: str
    size: int
    ratios: Ratios


def run(requests: int = REQUESTS) -> list[Row]:
    """Raises Unavailable when the peers' environment cannot be made."""
    theirs = _in_their_environment(requests)
    rows = []
    for name in TRACES:
        keys = trace(name, requests)
        for size in SIZES:
            ours = {side: _ratio(side, keys, size) for side in OURS}
            rows.append(Row(name, size, ours | theirs[name, size]))
    return rows


def figures(url: str, folder: Path, *, quick: bool) -> Iterator[Figure]:
    """url, folder: not used; every part of the benchmark is given them."""
    for row in run(REQUESTS // 2 if quick else REQUESTS):
        sides = {side: f"{ratio:.1f} %" for side, ratio in row.ratios.items()}
        ours, what = row.ratios["tinylfu"], f"hit ratio, {row.trace}, {row.size:,} entries"
        like_theine = TO_THEINE if row.trace in _LIKE_THEINE else None
        yield judged(f"{what} (theine)", ours - row.ratios["theine"], "points", like_theine, sides)
        yield judged(f"{what} (LRU)", ours - row.ratios["cachetools"], "points", TO_LRU, sides)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="half the requests")
    options.add_argument("--requests", type=int, default=REQUESTS)
    options.add_argument("--sides", type=lambda text: text.split(","), help="only these, as JSON")
    chosen = options.parse_args()
    if chosen.sides:
        print(json.dumps(list(_rows_of(chosen.sides, chosen.requests))))
        return
    rows = run(REQUESTS // 2 if chosen.quick else chosen.requests)
    print(f"{'trace':14}{'entries':>9}" + "".join(f"{side:>12}" for side in OURS + PEERS))
    for row in rows:
        ratios = "".join(f"{row.ratios[side]:>11.1f}%" for side in OURS + PEERS)
        print(f"{row.trace:14}{row.size:>9,}{ratios}")


def _in_their_environment(requests: int) -> dict[tuple[str, int], Ratios]:
    python = runtime("memory", Path(__file__).parent / "peers")
    command = [python, "-m", __spec__.name, "--sides", ",".join(PEERS), "--requests", str(requests)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_ANSWER_S)
    if done.returncode:
        raise Unavailable(f"theine and cachetools: {done.stderr.strip().splitlines()[-1]}")
    return {(name, size): ratios for name, size, ratios in json.loads(done.stdout)}


def _rows_of(sides: list[str], requests: int) -> Iterator[tuple[str, int, Ratios]]:
    for name in TRACES:
        keys = trace(name, requests)
        for size in SIZES:
            yield name, size, {side: _ratio(side, keys, size) for side in sides}


def _ratio(side: str, keys: list[str], size: int) -> float:
    """Percent of the keys that were there when they were asked for; the others are put in."""
    get, put = _CACHES[side](size)
    hits = 0
    for key in keys:
        if get(key):
            hits += 1
        else:
            put(key)
    return 100 * hits / len(keys)


def _brain(policy: str) -> Callable[[int], GetAndPut]:
    def made(size: int) -> GetAndPut:
        from cache_app.memory import MemoryStore

        store = MemoryStore(2**40, size, policy)
        return store.get, lambda key: store.set(key, b"1", None)

    return made


def _theine(size: int) -> GetAndPut:
    from theine import Cache

    cache: Any = Cache(size)
    return lambda key: cache.get(key)[1], lambda key: cache.set(key, 1)


def _cachetools(size: int) -> GetAndPut:
    from cachetools import LRUCache

    cache: Any = LRUCache(size)
    return cache.get, lambda key: cache.__setitem__(key, 1)


_CACHES: dict[str, Callable[[int], GetAndPut]] = {
    "tinylfu": _brain("tinylfu"),
    "lru": _brain("lru"),
    "theine": _theine,
    "cachetools": _cachetools,
}


if __name__ == "__main__":
    main()
