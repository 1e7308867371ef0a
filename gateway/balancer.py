"""Which target gets the request: in turn, by weight, by load, by latency, or by a key.

A strategy has two ways to pick. `propose` picks among all targets and asks none of them whether it may be used:
the hot path. `choose` picks among those that were found usable; it knows about slow start.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Protocol

from .policy import Policy

STRATEGIES = ("round_robin", "weighted", "least_connections", "p2c", "peak_ewma", "consistent_hash")

MAX_SCHEDULE = 4096  # turns written out beforehand
POINTS = 100  # on the ring for each unit of weight
MAX_POINTS = 131_072
UNMEASURED_S = 0.1  # the latency of a service's very first target
QUIET = 8  # requests in flight up to which no target counts as loaded: a caller's session is worth more


class Candidate(Protocol):
    """ramp: 0.1 … 1.0, the part of its share that a target in its slow start gets. ewma_s, ewma_at: its latency
    as it was measured last, and when (0.0: never). asked_at: when two choices picked it last."""

    @property
    def name(self) -> str: ...

    weight: int
    inflight: int
    ramp: float
    ewma_s: float
    ewma_at: float
    asked_at: float


class Strategy(Protocol):
    """scans: `propose` compares targets, so one that may not be used must not hide the others."""

    scans: bool

    def propose(self, now: float, key: bytes | None) -> Any: ...
    def choose(self, usable: Sequence[Any], proposed: Any, now: float, key: bytes | None) -> Any:
        """proposed: what `propose` said for this request, None for a retry."""


def strategy(
    name: str, targets: Sequence[Candidate], policy: Policy, random: Callable[[], float]
) -> Strategy:
    """A strategy over at least one target, all of a weight above 0. random: 0 <= x < 1.

    Raises ValueError for an unknown name.
    """
    if name == "round_robin":
        return Turns(targets, [1] * len(targets), random)
    if name == "weighted":
        return Turns(targets, [target.weight for target in targets], random)
    if name == "least_connections":
        return LeastConnections(targets)
    if name == "p2c":
        return TwoChoices(targets, random, _load)
    if name == "peak_ewma":
        return TwoChoices(targets, random, PeakEwma(targets, policy).cost)
    if name == "consistent_hash":
        return Ring(targets, policy, random)
    raise ValueError(f"{name!r} is not one of {', '.join(STRATEGIES)}")


class Turns:
    """Each as often as its weight says, spread evenly."""

    scans = False
    __slots__ = ("_current", "_last", "_random", "_schedule", "_turn", "_weights")

    def __init__(
        self, targets: Sequence[Candidate], weights: Sequence[int], random: Callable[[], float]
    ) -> None:
        self._weights = dict(zip(targets, weights, strict=True))
        self._current: dict[Candidate, float] = {}
        self._schedule = _schedule(targets, weights)
        self._last = len(self._schedule) - 1
        self._turn = 0
        self._random = random

    def propose(self, now: float, key: bytes | None) -> Candidate:
        turn = self._turn
        self._turn = turn + 1 if turn < self._last else 0
        return self._schedule[turn]

    def choose(
        self, usable: Sequence[Candidate], proposed: Candidate | None, now: float, key: bytes | None
    ) -> Candidate:
        """Who is in its slow start passes on some of its turns; those are shared out among the others."""
        if proposed is not None and proposed in usable:
            if self._random() < proposed.ramp or len(usable) == 1:
                return proposed
            usable = [target for target in usable if target is not proposed]
        weights = self._weights
        return _smooth(self._current, [(target, weights[target] * target.ramp) for target in usable])


def _schedule(targets: Sequence[Candidate], weights: Sequence[int]) -> list[Candidate]:
    """One whole cycle of smooth weighted round robin, or as much of it as is reasonable to write out."""
    common = math.gcd(*weights)
    parts = [(target, float(weight // common)) for target, weight in zip(targets, weights, strict=True)]
    current: dict[Candidate, float] = {}
    return [_smooth(current, parts) for _ in range(min(MAX_SCHEDULE, sum(weights) // common))]


def _smooth(current: dict[Candidate, float], weighted: Sequence[tuple[Candidate, float]]) -> Candidate:
    """nginx's: 5, 1, 1 goes a a b a c a a instead of five in a row."""
    best, most, total = weighted[0][0], -math.inf, 0.0
    for target, weight in weighted:
        total += weight
        current[target] = value = current.get(target, 0.0) + weight
        if value > most:
            best, most = target, value
    current[best] = most - total
    return best


class LeastConnections:
    """The lowest (requests in flight + 1) / weight; equals take turns, or the first would get every quiet
    moment."""

    scans = True
    __slots__ = ("_targets", "_turn")

    def __init__(self, targets: Sequence[Candidate]) -> None:
        self._targets = tuple(targets)
        self._turn = -1

    def propose(self, now: float, key: bytes | None) -> Candidate:
        return self.choose(self._targets, None, now, key)

    def choose(
        self, usable: Sequence[Candidate], proposed: Candidate | None, now: float, key: bytes | None
    ) -> Candidate:
        self._turn = turn = (self._turn + 1) % len(usable)
        best, least = usable[turn], math.inf
        for target in (*usable[turn:], *usable[:turn]):
            load = (target.inflight + 1) / (target.weight * target.ramp)
            if load < least:
                best, least = target, load
        return best


class TwoChoices:
    """The cheaper of two random targets ("power of two choices"): nearly as even as the cheapest of all, without
    all processes of a fleet running to the same one."""

    scans = True
    __slots__ = ("_cost", "_random", "_targets")

    def __init__(
        self,
        targets: Sequence[Candidate],
        random: Callable[[], float],
        cost: Callable[[Candidate, float], float],
    ) -> None:
        self._targets, self._random, self._cost = tuple(targets), random, cost

    def propose(self, now: float, key: bytes | None) -> Candidate:
        return self.choose(self._targets, None, now, key)

    def choose(
        self, usable: Sequence[Candidate], proposed: Candidate | None, now: float, key: bytes | None
    ) -> Candidate:
        count = len(usable)
        first = int(self._random() * count)
        one = usable[first]
        if count == 1:
            return one
        second = int(self._random() * (count - 1))
        other = usable[second + (second >= first)]
        best = one if self._cost(one, now) <= self._cost(other, now) else other
        best.asked_at = now
        return best


def _load(target: Candidate, now: float) -> float:
    return (target.inflight + 1) / (target.weight * target.ramp)


class PeakEwma:
    """Expected wait: recent latency × (requests in flight + 1) / weight."""

    __slots__ = ("_decay_s", "_targets")

    def __init__(self, targets: Sequence[Candidate], policy: Policy) -> None:
        self._targets, self._decay_s = tuple(targets), policy.ewma_decay_s

    def cost(self, target: Candidate, now: float) -> float:
        if not target.ewma_at:
            self._start(target, now)
        return self._latency_s(target, now) * (target.inflight + 1) / (target.weight * target.ramp)

    def _latency_s(self, target: Candidate, now: float) -> float:
        """Forgets while nobody asks the target, or one that was slow once would never be tried again.

        Not while it owes answers to those who just did: one that hangs after a quiet time would look quicker than
        those that answer, and get nearly everything.
        """
        known_at = target.ewma_at
        if target.inflight and target.asked_at > known_at:
            known_at = target.asked_at
        return target.ewma_s * math.exp((known_at - now) / self._decay_s)

    def _start(self, target: Candidate, now: float) -> None:
        """A new target has the others' mean, neither the best nor the worst of them."""
        known = [self._latency_s(one, now) for one in self._targets if one.ewma_at]
        target.ewma_s, target.ewma_at = (sum(known) / len(known) if known else UNMEASURED_S), now


class Ring:
    """A key stays with its target while that has room, and only the keys of a target that leaves move.

    A target takes up to hash_balance times its fair share ("consistent hashing with bounded loads", Mirrokni et
    al. 2016); what is more goes to the next on the ring. Requests without a key take turns.
    """

    scans = False
    __slots__ = ("_balance", "_owners", "_points", "_targets", "_turns", "_weight")

    def __init__(self, targets: Sequence[Candidate], policy: Policy, random: Callable[[], float]) -> None:
        ring = sorted(_points(targets), key=lambda point: (point[0], point[1].name))
        self._points = [point for point, _ in ring]
        self._owners = [target for _, target in ring]
        self._targets = tuple(targets)
        self._weight = sum(target.weight for target in targets)
        self._balance = policy.hash_balance
        self._turns = Turns(targets, [target.weight for target in targets], random)

    def propose(self, now: float, key: bytes | None) -> Candidate:
        if key is None:
            return self._turns.propose(now, key)
        owner = self._owners[self._place(key)]
        return owner if self._has_room(owner, self._targets) else self._walk(key, self._targets)

    def choose(
        self, usable: Sequence[Candidate], proposed: Candidate | None, now: float, key: bytes | None
    ) -> Candidate:
        return self._turns.choose(usable, proposed, now, key) if key is None else self._walk(key, usable)

    def _place(self, key: bytes) -> int:
        place = bisect_right(self._points, _position(key))
        return place if place < len(self._points) else 0

    def _has_room(self, target: Candidate, usable: Sequence[Candidate]) -> bool:
        if target.inflight < QUIET or not self._balance:
            return True
        fair = sum(one.inflight for one in usable) + 1
        weight = self._weight if usable is self._targets else sum(one.weight for one in usable)
        return target.inflight < math.ceil(self._balance * fair * target.weight / weight)

    def _walk(self, key: bytes, usable: Sequence[Candidate]) -> Candidate:
        """Clockwise from the key's place to the first usable target with room."""
        full = set()
        place, owners = self._place(key), self._owners
        for i in range(place, place + len(owners)):
            target = owners[i % len(owners)]
            if target in full or target not in usable:
                continue
            if self._has_room(target, usable):
                return target
            full.add(target)
        return usable[0]  # not reached: the bounds add up to more than there are requests


def _points(targets: Sequence[Candidate]) -> list[tuple[int, Candidate]]:
    """A target's points depend on its own name and weight, so they stay where they are when others come and go.

    Fewer for each unit of weight when the weights are large, in powers of two: those that remain are the same.
    """
    each = POINTS
    while each > 1 and each * sum(target.weight for target in targets) > MAX_POINTS:
        each //= 2
    found = []
    for target in targets:
        for block in range(-(-each * target.weight // 8)):  # a digest of 64 bytes makes 8 points
            digest = blake2b(b"%d %b" % (block, target.name.encode())).digest()
            found += [(int.from_bytes(digest[i : i + 8], "big"), target) for i in range(0, 64, 8)]
    return found


def _position(key: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")
