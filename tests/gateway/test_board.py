"""What the processes write down about their targets, and how it reads together."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from cache_app import connections as store
from gateway import board
from gateway.board import Board, merge, read, report
from gateway.policy import Policy
from gateway.pool import DRAINING, FAILED, OK, Service, Target


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for a moment is no store that is away, and no process that has died."""
    monkeypatch.setattr(board, "STORE_TIMEOUT_S", 30.0)
    monkeypatch.setattr(board, "KEPT_S", 60.0)


def service(name: str = "s", count: int = 2, **policy: Any) -> Service:
    of = [Target(name, f"{letter}:80") for letter in "abc"[:count]]
    return Service(name, of, random=lambda: 0.5, policy=Policy(**policy))


def settle(one: Service, target: Target, outcome: str, times: int, now: float) -> None:
    for _ in range(times):
        target.inflight += 1
        one.settle(target, target.breaker.epoch, outcome, 0.25, now)


def test_merge__two_processes__the_worst_first_and_the_sums() -> None:
    calm, troubled = service(), service(outlier_failures=0)
    settle(troubled, troubled.targets[0], FAILED, 20, 100.0)
    settle(calm, calm.targets[0], OK, 1, 100.0)
    calm.targets[0].inflight, troubled.targets[0].inflight = 3, 2
    troubled.panicked = 4
    a, b = merge([report("p1", [calm], 103.0, 5000.0), report("p2", [troubled], 103.0, 5000.0)])
    assert (a.service, a.name, a.state, a.breaker) == ("s", "a:80", "active", "open")
    assert (a.inflight, a.panicked) == (5, 4)
    assert [view.process for view in a.views] == ["p2", "p1"]
    assert a.views[0].why == "open since 3 s: 20 of 20 requests failed; next probe in 2.0 s"
    assert a.views[1].why == ""
    assert a.ewma_s == 0.25  # an open breaker's target starts over, a failure's penalty is not its latency
    assert (b.breaker, b.inflight, b.ewma_s) == ("closed", 0, 0.0)


def test_merge__ejection_health_and_draining__as_seconds_since_the_epoch_and_the_latest() -> None:
    old, new = service(), service()
    settle(old, old.targets[0], FAILED, 5, 100.0)
    new.targets[0].state = DRAINING
    old.targets[1].health.observe("", 900.0, 905.0, Policy())
    for _ in range(3):
        new.targets[1].health.observe("status 500", 950.0, 955.0, Policy())
    a, b = merge([report("old", [old], 110.0, 1000.0), report("new", [new], 7.0, 1001.0)])
    assert a.state == "draining"
    assert [view.ejected_until for view in a.views] == [0.0, 1020.0] or [
        view.ejected_until for view in a.views
    ] == [1020.0, 0.0]
    assert (b.health, b.health_reason, b.checked_at, b.next_at) == ("unhealthy", "status 500", 950.0, 955.0)


async def test_board__two_processes__read_together_and_gone_when_they_stop(prefix: str) -> None:
    boards = [Board(lambda: [service("one"), service("two", 1)], prefix=prefix) for _ in range(2)]
    tasks = [asyncio.create_task(one.run(0.02)) for one in boards]
    standings: Any = ()
    async with asyncio.timeout(30):
        while not standings or len(standings[0].views) < 2:
            await asyncio.sleep(0.01)
            standings = await asyncio.to_thread(read, prefix=prefix)
    assert [(one.service, one.name) for one in standings] == [
        ("one", "a:80"),
        ("one", "b:80"),
        ("two", "a:80"),
    ]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await asyncio.to_thread(read, prefix=prefix) == ()


async def test_board__process_dies__its_view_expires(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Board(lambda: [service()], prefix=prefix)
    await one.publish()
    assert len(await asyncio.to_thread(read, prefix=prefix) or ()) == 2
    monkeypatch.setattr(board, "KEPT_S", 0.05)
    await one.publish()
    async with asyncio.timeout(30):
        while await asyncio.to_thread(read, prefix=prefix) != ():
            await asyncio.sleep(0.01)


async def test_board__another_version_of_the_code__left_out(prefix: str) -> None:
    await Board(lambda: [service()], prefix=prefix).publish()
    store.client().set(f"{prefix}{{board}}:new", b'{"format": 2}')
    store.client().zadd(f"{prefix}{{board}}", {"new": 9e12})
    assert len(await asyncio.to_thread(read, prefix=prefix) or ()) == 2


async def test_board__store_away__goes_on_and_nobody_can_say(
    prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = Board(lambda: [service()], prefix=prefix)
    task = asyncio.create_task(one.run(0.01))
    with monkeypatch.context() as patch:
        patch.setattr(store, "default_url", lambda: f"unix://{tmp_path}/nobody?db=0")
        await asyncio.sleep(0.05)
        assert await asyncio.to_thread(read, prefix=prefix) is None
        assert not task.done()
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(read, prefix=prefix):
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_report__random_is_not_asked__a_view_changes_nothing() -> None:
    one = Service("s", [Target("s", "a:80")], random=random.Random(1).random)
    first = report("p", [one], 100.0, 1000.0)
    assert first == report("p", [one], 100.0, 1000.0)
    assert one.targets[0].blocked  # looking is not asking
