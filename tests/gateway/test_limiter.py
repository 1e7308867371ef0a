"""Lua and Python count alike; and what happens when the store does not answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import redis

from cache_app import redis as store
from gateway import bucket
from gateway.bucket import Level, Limit, Taken
from gateway.limiter import SCRIPT, Limiter, LocalBuckets
from gateway.pipeline import TakeTokens


def lua(keys: list[str], limits: list[Limit], cost: float = 1.0) -> tuple[Taken, int]:
    arguments = [repr(cost), *(repr(part) for limit in limits for part in (limit.rate, limit.capacity))]
    admitted, now_us, *levels = store.client().register_script(SCRIPT)(keys, arguments)
    return Taken(bool(admitted), tuple(float(level) for level in levels)), int(now_us)


def test_contract__same_sequence__lua_and_python_agree_to_the_last_bit(prefix: str) -> None:
    dice = random.Random(7)
    limits = [Limit("a", 137.5, 7.0, 1, 1), Limit("b", 900 / 7, 5.0, 1, 1)]
    keys = [f"{prefix}{{t}}:{limit.name}" for limit in limits]
    levels: list[Level | None] = [None, None]
    outcomes = set()
    for _ in range(300):
        cost = dice.choice((1.0, 0.5, 3.0))
        answered, now_us = lua(keys, limits, cost)
        expected, levels = bucket.take(levels, limits, now_us, cost)
        assert answered == expected
        outcomes.add(answered.admitted)
    assert outcomes == {True, False}


def test_script__one_bucket_empty__nothing_is_taken_from_the_other(prefix: str) -> None:
    limits = [Limit("a", 0.001, 1.0, 1, 1), Limit("b", 0.001, 10.0, 1, 1)]
    keys = [f"{prefix}{{t}}:{limit.name}" for limit in limits]
    assert lua(keys, limits)[0].admitted
    before = store.client().hgetall(keys[1])
    refused, _ = lua(keys, limits)
    assert not refused.admitted
    assert refused.levels[1] == pytest.approx(9.0, abs=0.01)
    assert store.client().hgetall(keys[1]) == before


def test_script__clock_stepped_back__credits_nothing_and_keeps_the_later_time(prefix: str) -> None:
    limit = Limit("a", 1000.0, 5.0, 1, 1)
    key = f"{prefix}{{t}}:a"
    future_us = 10**16  # left by a server whose clock was ahead
    store.client().hset(key, mapping={"n": "2", "t": str(future_us)})
    answered, now_us = lua([key], [limit])
    assert answered == Taken(True, (1.0,))
    assert int(store.client().hget(key, "t")) == future_us
    assert bucket.take([Level(2.0, future_us)], [limit], now_us)[0] == answered


def test_script__bucket_that_is_full_again__forgotten(prefix: str) -> None:
    limit = Limit("a", 1.0, 10.0, 1, 1)
    lua([f"{prefix}{{t}}:a"], [limit])
    ttl_ms = store.client().pttl(f"{prefix}{{t}}:a")
    assert 1000 < ttl_ms <= 2000


def test_take__burst_then_rate__the_seeds_sixty_a_minute() -> None:
    limit = bucket.per_window("minute", 60, 60, capacity=10)
    level: list[Level | None] = [None]
    admitted = 0
    for now_ms in range(0, 60_000, 100):
        taken, level = bucket.take(level, [limit], now_ms * 1000)
        admitted += taken.admitted
    assert admitted == 10 + 59  # ten at once, then one a second


def test_headers__levels__whole_numbers() -> None:
    limits = [bucket.per_window("minute", 60, 60, capacity=10), bucket.per_window("hour", 1000, 3600)]
    taken = Taken(True, (8.7, 999.0))
    assert bucket.policy_header(limits) == '"minute";q=60;w=60, "hour";q=1000;w=3600'
    assert bucket.state_header(limits, taken) == '"minute";r=8;t=2, "hour";r=999;t=4'
    assert bucket.retry_after_s(limits, Taken(False, (0.2, 0.5))) == 2


def ask(key: str, policy: str, *, capacity: float = 2.0) -> TakeTokens:
    return TakeTokens((Limit("a", 0.001, capacity, 2, 2000, key=key),), policy)


async def test_limiter__sync_and_async_callers__count_together(prefix: str) -> None:
    limiter = Limiter(prefix=prefix)
    one = ask("{s}:x", "deny")
    assert limiter.take(one).admitted
    assert (await limiter.atake(one)).admitted
    assert not limiter.take(one).admitted
    assert not (await limiter.atake(one)).admitted


@pytest.mark.parametrize(
    ("policy", "expected"), [("local", [True, True, False]), ("allow", [True] * 3), ("deny", [False] * 3)]
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
    assert [limiter.take(ask("{s}:x", policy)).admitted for _ in range(3)] == expected
    limiter = Limiter()
    assert [(await limiter.atake(ask("{s}:x", policy))).admitted for _ in range(3)] == expected


def test_limiter__store_comes_back__asked_again_after_a_while(
    prefix: str, monkeypatch: pytest.MonkeyPatch, gateway_conf: Callable[..., None]
) -> None:
    gateway_conf(LIMITER_RETRY_S=0.0)
    limiter = Limiter(prefix=prefix)

    def broken(*args: Any) -> Any:
        raise redis.ConnectionError("down")

    with monkeypatch.context() as patch:
        patch.setattr(store, "client", broken)
        assert limiter.take(ask("{s}:x", "allow")).levels == ()
    assert limiter.take(ask("{s}:x", "allow")).levels == (1.0,)


def test_local_buckets__more_than_the_bound__least_recently_used_forgotten() -> None:
    buckets = LocalBuckets(size=2)
    for key in ("a", "b", "a", "c"):
        buckets.take(ask(key, "local", capacity=5.0).limits, 0)
    assert buckets.take(ask("a", "local", capacity=5.0).limits, 0).levels == (2.0,)
    assert buckets.take(ask("b", "local", capacity=5.0).limits, 0).levels == (4.0,)
