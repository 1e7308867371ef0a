"""Which target gets the request: round robin, smooth weighted round robin, least connections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

STRATEGIES = ("round_robin", "weighted", "least_connections", "p2c", "peak_ewma", "consistent_hash")


class Candidate(Protocol):
    inflight: int


C = TypeVar("C", bound=Candidate)

Picker = Callable[[Callable[[C], bool]], C | None]
"""Takes "may this one be used?" and returns a target, or None when none may."""


def picker(strategy: str, weighted: Sequence[tuple[C, int]]) -> Picker[C]:
    """A picker over (target, weight) pairs, with its own state. Raises ValueError for an unknown strategy."""
    if strategy == "round_robin":
        return _round_robin([target for target, _ in weighted])
    if strategy == "weighted":
        return _smooth_weighted(weighted)
    if strategy == "least_connections":
        return _least_connections(weighted)
    raise ValueError(f"{strategy!r} is not one of {', '.join(STRATEGIES)}")


def _round_robin(targets: Sequence[C]) -> Picker[C]:
    turn = 0

    def pick(usable: Callable[[C], bool]) -> C | None:
        nonlocal turn
        for _ in targets:
            target = targets[turn % len(targets)]
            turn = (turn + 1) % len(targets)
            if usable(target):
                return target
        return None

    return pick


def _smooth_weighted(weighted: Sequence[tuple[C, int]]) -> Picker[C]:
    """nginx's: 5, 1, 1 goes a a b a c a a instead of five in a row."""
    current = [0] * len(weighted)

    def pick(usable: Callable[[C], bool]) -> C | None:
        total, best = 0, -1
        for i, (target, weight) in enumerate(weighted):
            if weight <= 0 or not usable(target):
                continue
            current[i] += weight
            total += weight
            if best < 0 or current[i] > current[best]:
                best = i
        if best < 0:
            return None
        current[best] -= total
        return weighted[best][0]

    return pick


def _least_connections(weighted: Sequence[tuple[C, int]]) -> Picker[C]:
    """The lowest (requests in flight + 1) / weight; equals take turns, or the first would get every quiet
    moment."""
    turn = 0

    def pick(usable: Callable[[C], bool]) -> C | None:
        nonlocal turn
        turn += 1
        best, best_load = None, 0.0
        for i in range(len(weighted)):
            target, weight = weighted[(turn + i) % len(weighted)]
            if weight <= 0 or not usable(target):
                continue
            load = (target.inflight + 1) / weight
            if best is None or load < best_load:
                best, best_load = target, load
        return best

    return pick
