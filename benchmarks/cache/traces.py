"""Sequences of keys as caches meet them, made from a seed. Pure: they run in the peers' environments too."""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Callable, Iterator

KEYS = 50_000
REQUESTS = 200_000


def zipf(random: random.Random) -> Iterator[str]:
    """Some pages are read much more often than others, and stay so: Zipf 0.9 over 50,000 keys."""
    draw = _zipf(random, KEYS, 0.9)
    while True:
        yield f"z{draw()}"


def zipf_scan(random: random.Random) -> Iterator[str]:
    """The same, and after every 2,000 requests an export reads 1,000 keys that nobody reads again."""
    pages, scan = zipf(random), itertools.count()
    while True:
        yield from itertools.islice(pages, 2_000)
        yield from (f"s{next(scan)}" for _ in range(1_000))


def recency(random: random.Random) -> Iterator[str]:
    """Three of ten keys are new; the others were read so long ago that every order of magnitude is equally likely."""
    past: list[str] = []
    new = itertools.count()
    while True:
        if not past or random.random() < 0.3:
            key = f"r{next(new)}"
        else:
            key = past[-int(math.exp(random.random() * math.log(min(len(past), 20_000))))]
        past.append(key)
        yield key


def moving(random: random.Random) -> Iterator[str]:
    """A timeline: readers stay near its end, which moves on by a key every five requests. LRU's own ground."""
    for request in itertools.count():
        yield f"m{request // 5 - int(random.expovariate(1 / 1_500))}"


def oltp(random: random.Random) -> Iterator[str]:
    """A database's pages: a log that is appended to, an index (Zipf), records that come in bursts, and any others."""
    index, records, page = _zipf(random, 20_000, 0.8), ["o0"], 0
    while True:
        kind = random.random()
        if kind < 0.25:
            page += random.random() < 0.5
            yield f"l{page}"
        elif kind < 0.5:
            yield f"i{index()}"
        else:
            back = min(int(random.paretovariate(0.5)), len(records))
            record = records[-back] if kind < 0.75 else f"o{random.randrange(200_000)}"
            records.append(record)
            yield record


TRACES: dict[str, Callable[[random.Random], Iterator[str]]] = {
    "Zipf": zipf,
    "Zipf + scans": zipf_scan,
    "recency": recency,
    "moving": moving,
    "OLTP-like": oltp,
}


def trace(name: str, requests: int = REQUESTS, seed: int = 1) -> list[str]:
    return list(itertools.islice(TRACES[name](random.Random(seed)), requests))


def _zipf(random: random.Random, keys: int, exponent: float) -> Callable[[], int]:
    """Ranks from 0, the lower the likelier."""
    sums = list(itertools.accumulate(1 / rank**exponent for rank in range(1, keys + 1)))
    return lambda: bisect.bisect_left(sums, random.random() * sums[-1])
