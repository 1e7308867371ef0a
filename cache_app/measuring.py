"""A short benchmark of one alias as it is configured: how fast, and how often memory answers. Its keys go when it ends."""

from __future__ import annotations

import copy
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from .backend import BrainCache
from .stats import Counts

STEM = "bench"
_KEYS = 200
_MANY = 20
_LIFE_S = 60  # what a killed benchmark leaves is gone after so long
_MOST = 200_000  # calls of one operation


@dataclass(frozen=True, slots=True)
class Measured:
    """l1_ratio: 0 to 1 of its hits, those answered from memory; None of writes. rate: calls per second, in one thread."""

    operation: str
    calls: int
    rate: float
    p50_s: float
    p99_s: float
    l1_ratio: float | None


def measure(cache: BrainCache, *, seconds: float = 0.5, value_bytes: int = 100) -> Iterator[Measured]:
    """seconds: of each operation. Raises what the cache raises. The alias' own statistics do not count it."""
    ours = copy.copy(cache)
    ours.counts = Counts(cache.alias, STEM)
    with _keys(ours) as keys:
        value = os.urandom(value_bytes // 2 + 1).hex()[:value_bytes]
        some = dict.fromkeys(keys[:_MANY], value)
        turns = count()
        for operation, call in (
            ("set", lambda: ours.set(keys[next(turns) % _KEYS], value, _LIFE_S)),
            ("get", lambda: ours.get(keys[next(turns) % _KEYS])),
            ("get one key", lambda: ours.get(keys[0])),
            ("get missing", lambda: ours.get(f"{keys[0]}:missing")),
            (f"get_many({_MANY})", lambda: ours.get_many(keys[:_MANY])),
            (f"set_many({_MANY})", lambda: ours.set_many(some, _LIFE_S)),
        ):
            yield _measured(ours, operation, call, seconds)


@contextmanager
def _keys(cache: BrainCache) -> Iterator[list[str]]:
    stem = f"{STEM}:{uuid.uuid4().hex[:12]}"
    keys = [f"{stem}:{number}" for number in range(_KEYS)]
    try:
        yield keys
    finally:
        cache.delete_many(keys)


def _measured(cache: BrainCache, operation: str, call: Callable[[], Any], seconds: float) -> Measured:
    before = cache.counts.events()
    took: list[float] = []
    began = at = time.perf_counter()
    until = began + seconds
    while at < until and len(took) < _MOST:
        call()
        now = time.perf_counter()
        took.append(now - at)
        at = now
    exact = sorted(took)
    after = cache.counts.events()
    hits = {tier: after.get(tier, 0) - before.get(tier, 0) for tier in ("hits_l1", "hits_l2")}
    total = sum(hits.values())
    return Measured(
        operation=operation,
        calls=len(took),
        rate=len(took) / max(at - began, 1e-9),
        p50_s=exact[len(exact) // 2],
        p99_s=exact[min(len(exact) - 1, len(exact) * 99 // 100)],
        l1_ratio=hits["hits_l1"] / total if total else None,
    )
