"""Two edges that do not agree on the time share one bucket on a real store, and let nothing more through than one
would: the store's clock alone decides. Limiters that trust each node's clock let 2 to 20 times as much through here.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from cache_app import connections as store
from gateway.bucket import HOLD_US, Limit, Taken
from gateway.limiter import Limiter

OFFERED = 1000.0  # requests per second, to both edges together
SECONDS = 1.2


@dataclass
class Fleet:
    """Two edges; clocks: theirs, in seconds."""

    name: str
    clocks: tuple[Callable[[], float], Callable[[], float]]
    limit: Limit
    exact: bool = False
    admitted: int = 0
    refused: int = 0
    paid_from_leases: int = 0
    limiters: list[Limiter] = field(default_factory=list)

    def start(self, prefix: str) -> None:
        self.limiters = [
            Limiter(prefix=f"{prefix}{self.name}:", nodes=2, clock=clock) for clock in self.clocks
        ]

    def request(self, edge: int) -> None:
        limiter = self.limiters[edge]
        account = limiter.accounts.of("key:a", "/a", (self.limit,), (), "deny", self.exact)
        paid = account.spend(self.clocks[edge]())
        if paid is None:
            limiter.ask(account, 1.0, self.count)
        else:
            self.paid_from_leases += paid
            self.count(Taken(paid))

    def count(self, taken: Taken) -> None:
        self.admitted += taken.admitted
        self.refused += not taken.admitted


def at_least(limit: Limit, asked_at: list[float]) -> float:
    """Of one bucket that is asked at these times: also by clients that were stopped for a second, and then came all at
    once."""
    level, last, admitted = limit.capacity, asked_at[0], 0
    for at in asked_at:
        level = min(limit.capacity, level + (at - last) * limit.rate)
        last = at
        if level >= 1:
            level, admitted = level - 1, admitted + 1
    return admitted * 0.7


def skewed(skew_s: float) -> Callable[[], float]:
    return lambda: time.monotonic() + skew_s


def jumping(dice: random.Random, skew_s: float) -> Callable[[], float]:
    """Worse than any real one: monotonic clocks do not go back."""
    return lambda: time.monotonic() + dice.uniform(-skew_s, skew_s)


async def test_two_edges__clocks_up_to_100_ms_apart__let_through_what_the_limit_says(
    prefix: str, gateway_conf: Callable[..., None]
) -> None:
    gateway_conf(LIMITER_TIMEOUT_S=30.0)
    dice = random.Random(3)
    small, large = Limit("s", 50.0, 10.0, 50, 1), Limit("s", 50.0, 100.0, 50, 1)
    fleets = [
        Fleet(f"{skew_s}", (skewed(0.0), skewed(skew_s)), small) for skew_s in (0.001, 0.005, 0.02, 0.1)
    ]
    fleets += [
        Fleet("leased", (skewed(0.0), skewed(0.1)), large),
        Fleet("jumping", (jumping(dice, 0.1), jumping(dice, 0.1)), large),
        Fleet("exact", (skewed(0.0), skewed(0.1)), large, exact=True),
    ]
    for fleet in fleets:
        fleet.start(prefix)
    began = server_s()
    start, asked_at = time.monotonic(), list[float]()
    for n in itertools.count():
        if n >= OFFERED * SECONDS and _have_leased(fleets[4:6], time.monotonic() - start):
            break
        asked_at.append(time.monotonic())
        for fleet in fleets:
            fleet.request(dice.randrange(2))
        await asyncio.sleep(max(0.0, start + n / OFFERED - time.monotonic()))
    for fleet in fleets:
        for limiter in fleet.limiters:
            await limiter.aclose()
    took = server_s() - began
    for fleet in fleets:
        allowed = fleet.limit.capacity + fleet.limit.rate * took
        assert fleet.admitted <= allowed, fleet.name
        assert fleet.admitted >= at_least(fleet.limit, asked_at), fleet.name  # nor is the client cheated
        assert fleet.admitted + fleet.refused == len(asked_at)
    assert [fleet.paid_from_leases > 0 for fleet in fleets[-3:]] == [True, True, False]


def _have_leased(fleets: list[Fleet], after_s: float) -> bool:
    """A lease is over when the machine stands still for as long as it lasts: then a later one is waited for."""
    return all(fleet.paid_from_leases for fleet in fleets) or after_s > 60.0


def server_s() -> float:
    seconds, us = store.client().time()
    return float(seconds + us / 1e6)


@pytest.mark.parametrize("killed", [False, True])
async def test_two_edges__lease_out_while_the_bucket_fills__no_more_than_the_capacity_at_once(
    prefix: str, gateway_conf: Callable[..., None], killed: bool
) -> None:
    """What a plain lease gets wrong: the bucket fills up behind its back, and the lease comes on top."""
    gateway_conf(LIMITER_TIMEOUT_S=30.0)
    now = 1000.0
    limit = Limit("s", 2000.0, 5000.0, 2000, 1)
    first, second = (Limiter(prefix=prefix, nodes=2, clock=lambda: now) for _ in range(2))
    mine = first.accounts.of("key:a", "/a", (limit,), (), "deny")
    for _ in range(2):
        now += 0.001
        assert (await first.atake(mine)).admitted
    assert mine.left == 100
    leased = time.monotonic()
    await asyncio.sleep(0.06)  # 120 tokens' time
    yours = second.accounts.of("key:a", "/a", (limit,), (), "deny", True)
    began = server_s()
    taken = await asyncio.gather(*(second.atake(yours, 100.0) for _ in range(60)))
    admitted = 100 * sum(one.admitted for one in taken)
    allowed = limit.capacity + limit.rate * (server_s() - began)
    if not killed:
        assert mine.spend(now, 100.0)  # by a clock that stands still, so it may be over for the store
        admitted += 100
        allowed += 100 * (time.monotonic() - leased > HOLD_US / 1e6)
    assert admitted <= allowed
    assert admitted >= (4900 if killed else 5000)
    await second.aclose()
