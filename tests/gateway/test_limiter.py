"""Lua and Python count alike; many requests share few calls, and none of them can spoil it for the others; and what
happens when the store does not answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis
import structlog

from cache_app import connections as store
from cache_app.link import Link
from gateway import bucket
from gateway.accounts import LEASE_S, Account
from gateway.bucket import Ask, Level, Limit, Taken
from gateway.limiter import SCRIPT, Flight, Limiter
from gateway.local_buckets import LocalBuckets

FAST = (Limit("second", 400.0, 400.0, 400, 1),)
THREE = (Limit("a", 0.001, 3.0, 3, 3000),)


def lua(keys: list[str], limits: list[Limit], asked: Ask | None = None) -> Taken:
    arguments = [
        *(asked or Ask(1.0, 1.0)),
        *(part for limit in limits for part in (limit.rate, limit.capacity)),
    ]
    reply = store.client().register_script(SCRIPT)(keys, list(map(repr, arguments)))
    return Taken(reply[0] == 1, tuple(map(float, reply[3:])), float(reply[1]), int(reply[2]))


def stored(key: str) -> Level | None:
    fields = {name.decode(): value for name, value in store.client().hgetall(key).items()}
    if not fields:
        return None
    return Level(float(fields["n"]), int(fields["t"]), float(fields["h"]), int(fields["l"]))


def set_back(key: str, level: Level, us: int) -> Level:
    """The same bucket `us` later (or, negative: after its server's clock went back)."""
    earlier = Level(level.tokens, level.at_us - us, level.held, level.over_us - us)
    whole = {"n": repr(level.tokens), "t": earlier.at_us, "h": repr(level.held), "l": earlier.over_us}
    store.client().hset(key, mapping=whole)
    return earlier


@pytest.mark.parametrize("seed", range(3))
def test_contract__random_operations__lua_and_python_agree_to_the_last_bit(prefix: str, seed: int) -> None:
    dice = random.Random(seed)
    limits = [Limit("a", 137.5, 70.0, 1, 1), Limit("b", 900 / 7, 50.0, 1, 1)]
    keys = [f"{prefix}{{t}}:{limit.name}" for limit in limits]
    levels: list[Level | None] = [None, None]
    outcomes: set[tuple[bool, bool, bool]] = set()
    last_us = 0
    for _ in range(400):
        costs = [dice.choice((1.0, 0.5, 3.0)) for _ in range(dice.choice((0, 1, 1, 4, 30)))]
        need, queue, unit = (costs[0], sum(costs), min(costs)) if costs else (0.0, 0.0, 1.0)
        settled = dice.choice((0.0, 0.0, dice.uniform(0, 4)))
        back = dice.choice((0.0, settled, dice.uniform(0, settled)))
        asked = Ask(
            need, queue, unit, dice.choice((0.0, 2.0, 3.5)), dice.uniform(0, 9), settled, back, last_us
        )
        taken = lua(keys, limits, asked)
        expected, levels = bucket.take(levels, limits, taken.at_us, asked)
        assert taken == expected
        assert [stored(key) for key in keys] == levels
        for key in keys:  # it expires by the server's own clock, while this test's is set as one likes
            store.client().persist(key)
        outcomes.add((taken.admitted, taken.granted > queue, 0 < taken.granted < queue))
        last_us = dice.choice((taken.at_us, taken.at_us, taken.at_us - bucket.REPORT_US - 1))
        if dice.random() < 0.3:
            step_us = dice.choice((-300_000, 1_000, 100_000, 900_000, 3_000_000, -3_600_000_000))
            levels = [
                level and set_back(key, level, step_us) for key, level in zip(keys, levels, strict=True)
            ]
            last_us -= step_us
    assert {(True, True, False), (True, False, True), (False, False, False)} <= outcomes


def test_take__two_owners_on_a_cluster__their_keys_are_on_one_node(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = Limiter(prefix=prefix)
    own = (bucket.per_window("consumer-minute", 60, 60),)
    account = limiter.accounts.of("ip:1.2.3.4", "/x", THREE, own, "deny", False, "key:a")
    keys = limiter._keys(account)
    assert [key.removeprefix(prefix) for key in keys] == [
        "{ip:1.2.3.4}:/x:" + THREE[0].name,
        "{key:a}::consumer-minute",
    ]
    monkeypatch.setattr(Link, "is_cluster", True)
    assert {key.removeprefix(prefix).partition("}")[0] for key in limiter._keys(account)} == {"{key:a"}
    assert len(set(limiter._keys(account))) == 2
    assert limiter.take(account).admitted


def test_script__one_bucket_empty__nothing_is_taken_from_the_other(prefix: str) -> None:
    limits = [Limit("a", 0.001, 1.0, 1, 1), Limit("b", 0.001, 10.0, 1, 1)]
    keys = [f"{prefix}{{t}}:{limit.name}" for limit in limits]
    assert lua(keys, limits).admitted
    before = store.client().hgetall(keys[1])
    refused = lua(keys, limits)
    assert not refused.admitted
    assert refused.levels[1] == pytest.approx(9.0, abs=0.01)
    assert store.client().hgetall(keys[1]) == before


def test_script__clock_stepped_back__credits_nothing_and_keeps_the_later_time(prefix: str) -> None:
    limit = Limit("a", 1000.0, 5.0, 1, 1)
    key = f"{prefix}{{t}}:a"
    seconds, micros = store.client().time()
    future_us = seconds * 1_000_000 + micros + bucket.SET_US // 2  # left by a server whose clock was ahead
    store.client().hset(key, mapping={"n": "2", "t": str(future_us)})
    taken = lua([key], [limit])
    assert (taken.admitted, taken.levels) == (True, (1.0,))
    assert int(store.client().hget(key, "t")) == future_us
    assert bucket.take([Level(2.0, future_us)], [limit], taken.at_us, Ask(1.0, 1.0))[0] == taken


def test_script__clock_was_set_back__credits_nothing_and_fills_on_from_there(prefix: str) -> None:
    limit = Limit("a", 1000.0, 5.0, 1, 1)
    key = f"{prefix}{{t}}:a"
    future_us = 10**16
    store.client().hset(key, mapping={"n": "2", "t": str(future_us), "h": "1", "l": str(future_us + 1)})
    taken = lua([key], [limit])
    assert (taken.admitted, taken.levels) == (True, (1.0,))
    assert stored(key) == Level(1.0, taken.at_us, 1.0, taken.at_us + bucket.HOLD_US)
    assert store.client().pttl(key) < 10_000
    before = Level(2.0, future_us, 1.0, future_us + 1)
    assert bucket.take([before], [limit], taken.at_us, Ask(1.0, 1.0))[0] == taken
    late = Ask(1.0, 1.0, settled=1.0, back=1.0, granted_us=future_us)
    assert bucket.take([before], [limit], taken.at_us, late)[0] == taken


def test_script__bucket_that_is_full_again__forgotten_but_not_while_leases_are_out(prefix: str) -> None:
    for limit, asked, least_ms in (
        (Limit("a", 1.0, 10.0, 1, 1), Ask(1.0, 1.0), 1000),
        (Limit("b", 1000.0, 100.0, 1, 1), Ask(1.0, 1.0, lease=5.0), 2000),
    ):
        key, began = f"{prefix}{{t}}:{limit.name}", time.monotonic()
        lua([key], [limit], asked)
        left_ms = store.client().pttl(key)
        assert left_ms <= least_ms + 1000
        assert left_ms + 1000 * (time.monotonic() - began) > least_ms


def test_take__burst_then_rate__the_seeds_sixty_a_minute() -> None:
    limit = bucket.per_window("minute", 60, 60, capacity=10)
    level: list[Level | None] = [None]
    admitted = 0
    for now_ms in range(0, 60_000, 100):
        taken, level = bucket.take(level, [limit], now_ms * 1000, Ask(1.0, 1.0))
        admitted += taken.admitted
    assert admitted == 10 + 59  # ten at once, then one a second


def test_headers__levels__whole_numbers() -> None:
    limits = [bucket.per_window("minute", 60, 60, capacity=10), bucket.per_window("hour", 1000, 3600)]
    taken = Taken(True, (8.7, 999.0))
    assert bucket.policy_header(limits) == '"minute";q=60;w=60, "hour";q=1000;w=3600'
    assert bucket.state_header(limits, taken) == '"minute";r=8;t=2, "hour";r=999;t=4'
    assert bucket.retry_after_s(limits, Taken(False, (0.2, 0.5))) == 2


# --- many requests, few calls ---


class Counting(Limiter):
    """Its clock stands at `now`. Counts the calls, and holds them while `gate` is closed."""

    def __init__(self, **values: Any) -> None:
        super().__init__(clock=lambda: self.now, **values)
        self.now = 1000.0
        self.asks: list[Ask] = []
        self.held: list[Ask] | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    def _send(self, flight: Flight) -> None:
        if flight.asks is not self.held:
            self.asks += flight.asks
        self.held = flight.asks
        if self.gate.is_set():
            super()._send(flight)
        else:
            self.waiting = asyncio.ensure_future(self._send_then(flight))

    async def _send_then(self, flight: Flight) -> None:
        await self.gate.wait()
        if self._flight is flight:
            super()._send(flight)


@pytest.fixture
async def limiter(prefix: str, gateway_conf: Callable[..., None]) -> AsyncIterator[Counting]:
    gateway_conf(LIMITER_TIMEOUT_S=30.0)
    made = Counting(prefix=prefix)
    yield made
    made.gate.set()
    await made.aclose()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.001)


def one_of(limiter: Limiter, limits: tuple[Limit, ...], policy: str = "deny", **values: Any) -> Account:
    return limiter.accounts.of("key:s", "/x", limits, (), policy, **values)


async def test_limiter__sync_and_async_callers__count_together(limiter: Counting) -> None:
    account = one_of(limiter, THREE)
    assert limiter.take(account).admitted
    assert (await limiter.atake(account)).admitted
    assert limiter.take(account).admitted
    refused = limiter.take(account)
    assert not refused.admitted
    assert account.spend(limiter.now) is False
    assert 970 <= account.retry_after_s() <= 1000  # one comes in a thousand seconds
    assert (await limiter.atake(account)).levels == pytest.approx((0.0,), abs=0.1)


async def test_atake__many_wait__one_call_serves_them_in_order_and_no_more_than_it_granted(
    limiter: Counting,
) -> None:
    account = one_of(limiter, THREE)
    limiter.gate.clear()
    first = [asyncio.ensure_future(limiter.atake(account)) for _ in range(1)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    rest = [asyncio.ensure_future(limiter.atake(account)) for _ in range(5)]
    await asyncio.sleep(0)
    limiter.gate.set()
    taken = await asyncio.gather(*first, *rest)
    assert [one.admitted for one in taken] == [True] * 3 + [False] * 3
    assert [(asked.need, asked.queue) for asked in limiter.asks] == [(1.0, 1.0), (1.0, 5.0)]
    assert [round(one.levels[0]) for one in taken] == [2, 1, 0, 0, 0, 0]


async def test_atake__more_than_the_bucket_fills_in_a_round_trip__refused_and_not_asked_for_again(
    limiter: Counting,
) -> None:
    account = one_of(limiter, (Limit("a", 100.0, 2.0, 100, 1),))
    limiter.gate.clear()
    waiting = [asyncio.ensure_future(limiter.atake(account)) for _ in range(9)]
    await until(lambda: bool(limiter.asks))
    limiter.now += 1.0  # a slow answer: by now another token may well be there
    limiter.gate.set()
    assert [(await one).admitted for one in waiting] == [True] * 2 + [False] * 7
    assert len(limiter.asks) == 1


async def test_atake__client_goes_away_while_it_waits__loses_nothing_for_the_others(
    limiter: Counting,
) -> None:
    account = one_of(limiter, THREE)
    limiter.gate.clear()
    gone = [asyncio.ensure_future(limiter.atake(account)) for _ in range(3)]
    await until(lambda: bool(limiter.asks))
    assert [asked.queue for asked in limiter.asks] == [3.0]
    for one in gone[:2]:
        one.cancel()
    await asyncio.sleep(0)
    limiter.gate.set()
    assert (await gone[2]).admitted
    await until(lambda: not account.asking)
    assert limiter.asks[-1].back == 2.0
    assert [limiter.take(account).admitted for _ in range(3)] == [True, True, False]
    assert not account.waiting


@pytest.mark.parametrize("first", ["answer", "cancel"])
async def test_atake__cancelled_in_the_moment_of_the_answer__given_back(
    limiter: Counting, first: str
) -> None:
    account = one_of(limiter, THREE)
    waiting = asyncio.ensure_future(limiter.atake(account))
    await asyncio.sleep(0)  # it waits now
    answer = account.waiting[0].answer

    def both(taken: Taken) -> None:
        for step in (answer, lambda _: waiting.cancel())[:: 1 if first == "answer" else -1]:
            step(taken)

    account.waiting[0].answer = both
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: not account.asking)
    assert [limiter.take(account).admitted for _ in range(4)] == [True, True, True, False]


async def test_ask__one_answer_fails__the_others_are_told(limiter: Counting) -> None:
    account, told = one_of(limiter, THREE), []

    def fails(taken: Taken) -> None:
        raise ValueError("not yours")

    limiter.gate.clear()
    limiter.ask(account, 1.0, fails)
    limiter.ask(account, 1.0, told.append)
    limiter.ask(account, 1.0, told.append).cancel()
    limiter.gate.set()
    await until(lambda: bool(told))
    assert [one.admitted for one in told] == [True]
    assert (await limiter.atake(account)).admitted
    assert not (await limiter.atake(account)).admitted


async def test_ask__many_accounts__leave_together(limiter: Counting) -> None:
    connections = len(store.aclient().connection_pool._available_connections)
    accounts = [limiter.accounts.of(f"ip:{n}", "/x", THREE, (), "deny") for n in range(50)]
    taken = await asyncio.gather(*(limiter.atake(account) for account in accounts))
    assert [one.levels for one in taken] == [(2.0,)] * 50
    assert len(store.aclient().connection_pool._available_connections) <= connections + 1


async def warm(limiter: Counting) -> Account:
    """An account with a lease of twenty, one spent."""
    account = one_of(limiter, FAST)
    for _ in range(2):
        limiter.now += 0.001
        assert (await limiter.atake(account)).admitted
    assert account.left == 20
    assert account.spend(limiter.now)
    return account


async def test_spend__warm_lease__no_call_and_no_event_loop(limiter: Counting) -> None:
    account = await warm(limiter)
    asked = len(limiter.asks)
    without_a_loop = asyncio.to_thread(lambda: [account.spend(limiter.now) for _ in range(8)])
    assert await without_a_loop == [True] * 8
    assert len(limiter.asks) == asked


async def test_spend__lease_runs_low__next_one_comes_while_requests_go_on(limiter: Counting) -> None:
    account = await warm(limiter)
    for _ in range(300):
        limiter.now += 0.001
        assert account.spend(limiter.now)
        if account.asking:
            await until(lambda: not account.asking)
    assert len(limiter.asks) < 30


async def test_spend__slower_than_the_lease_lasts__renewed_in_time(limiter: Counting) -> None:
    account = await warm(limiter)
    for _ in range(20):
        limiter.now += LEASE_S / 4
        assert account.spend(limiter.now)
        await until(lambda: not account.asking)
    assert limiter.asks[-1].settled > 0


async def test_lease__client_stops__handed_back_within_a_moment(limiter: Counting) -> None:
    account = await warm(limiter)
    limiter.now += LEASE_S
    await until(lambda: account.left == 0.0 and not account.asking)
    assert account.levels[0] >= 399 - 2
    await until(lambda: limiter._sweeper is None)
    assert limiter._leased == set()


async def test_aclose__leases_out__handed_back_at_once(limiter: Counting, prefix: str) -> None:
    limits = (Limit("slow", 40.0, 400.0, 400, 10),)
    account = one_of(limiter, limits)
    for _ in range(2):
        limiter.now += 0.001
        assert (await limiter.atake(account)).admitted
    assert account.left == 2
    await limiter.aclose()
    level = stored(f"{prefix}{account.limits[0].key}")
    assert account.left == 0.0
    assert level is not None
    assert level.held == 0.0
    assert level.tokens >= 400 - 3


async def test_script__flushed_from_the_server__sent_again(limiter: Counting) -> None:
    account = one_of(limiter, THREE)
    assert (await limiter.atake(account)).admitted
    store.client().script_flush()
    two = limiter.accounts.of("key:other", "/x", THREE)
    assert [one.admitted for one in await asyncio.gather(limiter.atake(account), limiter.atake(two))] == [
        True, True
    ]  # fmt: skip
    assert store.client().script_exists(store.client().register_script(SCRIPT).sha) == [True]


# --- without the store ---


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("local", [True, True, True, False]), ("allow", [True] * 4), ("deny", [False] * 4)],
)
async def test_limiter__store_down__the_plans_policy_decides(
    policy: str,
    expected: list[bool],
    monkeypatch: pytest.MonkeyPatch,
    gateway_conf: Callable[..., None],
    tmp_path: Any,
) -> None:
    nobody = f"unix://{tmp_path}/nobody?db=0"
    monkeypatch.setattr(store, "default_url", lambda: nobody)
    limiter = Limiter()
    account = one_of(limiter, THREE, policy)
    assert [limiter.take(account).admitted for _ in range(4)] == expected
    limiter = Limiter()
    account = one_of(limiter, THREE, policy)
    with structlog.testing.capture_logs() as logs:
        taken = [await limiter.atake(account) for _ in range(4)]
    assert [one.admitted for one in taken] == expected
    assert [entry["event"] for entry in logs] == ["limiter_store_down"]
    limiter.give_back(account, taken[0])
    assert account.left == 0.0  # the store never counted it
    assert (b"RateLimit: " in account.header_lines()) == (policy == "local")


async def test_limiter__store_hangs__waited_for_once_and_then_left_alone(
    limiter: Counting, gateway_conf: Callable[..., None]
) -> None:
    gateway_conf(LIMITER_TIMEOUT_S=0.05, LIMITER_RETRY_S=60.0)
    limiter.gate.clear()
    account, late = one_of(limiter, THREE, "allow"), limiter.accounts.of("key:late", "/x", THREE, (), "allow")
    waiting = [asyncio.ensure_future(limiter.atake(account)) for _ in range(4)]
    await until(lambda: bool(limiter.asks))
    waiting.append(asyncio.ensure_future(limiter.atake(late)))
    assert [(await one).admitted for one in waiting] == [True] * 5
    told: list[Taken] = []
    limiter.ask(account, 1.0, told.append)
    assert told == [Taken(True)]
    assert len(limiter.asks) == 1


async def test_limiter__store_comes_back__one_request_finds_out(
    limiter: Counting, monkeypatch: pytest.MonkeyPatch, gateway_conf: Callable[..., None]
) -> None:
    gateway_conf(LIMITER_RETRY_S=1.0)
    account = one_of(limiter, THREE, "allow")

    def broken(*_: Any, **__: Any) -> Any:
        raise redis.ConnectionError("down")

    with structlog.testing.capture_logs() as logs:
        with monkeypatch.context() as patch:
            patch.setattr(store, "link", broken)
            patch.setattr(store, "aclient", broken)
            assert limiter.take(account).levels == ()
            limiter.now += 1
            assert (await limiter.atake(account)).levels == ()
        limiter.now += 1
        limiter.gate.clear()
        looks = asyncio.ensure_future(limiter.atake(account))
        await asyncio.sleep(0)
        assert (await limiter.atake(account)).levels == ()  # this one does not wait for the answer
        limiter.gate.set()
        assert (await looks).levels == (2.0,)
    assert (await limiter.atake(account)).levels == (pytest.approx(1.0, abs=0.01),)
    assert [entry["event"] for entry in logs] == ["limiter_store_down", "limiter_store_up"]


async def test_limiter__bug_in_the_call__answered_by_the_policy_and_not_stuck(
    limiter: Counting, monkeypatch: pytest.MonkeyPatch, gateway_conf: Callable[..., None]
) -> None:
    gateway_conf(LIMITER_RETRY_S=0.0)
    account = one_of(limiter, THREE, "deny")
    with monkeypatch.context() as patch:
        patch.setattr(limiter, "_command", lambda *args: 1 / 0)
        assert not (await limiter.atake(account)).admitted
    assert (await limiter.atake(account)).admitted


def test_local_buckets__more_than_the_bound__least_recently_used_forgotten() -> None:
    buckets = LocalBuckets(size=2)
    limits = {key: [Limit("a", 0.001, 5.0, 2, 2000, key=key)] for key in "abc"}
    for key in ("a", "b", "a", "c"):
        buckets.take(limits[key], 0.0)
    assert buckets.take(limits["a"], 0.0).levels == (2.0,)
    assert buckets.take(limits["b"], 0.0).levels == (4.0,)
