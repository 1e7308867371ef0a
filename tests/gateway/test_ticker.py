from __future__ import annotations

import asyncio
import contextlib

import pytest
import structlog

from gateway.ticker import repeat


async def test_repeat__cancelled__ends_though_the_work_swallows_it() -> None:
    rounds = []

    async def work() -> None:
        rounds.append(1)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0 if len(rounds) < 3 else 60)

    task = asyncio.create_task(repeat(work, lambda: 0.0))
    while len(rounds) < 3:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(30):
            await task
    assert len(rounds) == 3


async def test_repeat__work_fails__so_does_it() -> None:
    async def work() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        await repeat(work, lambda: 0.0)


async def test_repeat__work_that_may_fail__told_once_until_it_goes_well_and_goes_on() -> None:
    outcomes = iter(["bad", "bad", "good", "bad", "end"])

    async def work() -> None:
        outcome = next(outcomes)
        if outcome == "bad":
            raise RuntimeError("a bug")
        if outcome == "end":
            raise asyncio.CancelledError

    with structlog.testing.capture_logs() as lines, pytest.raises(asyncio.CancelledError):
        await repeat(work, lambda: 0.0, trouble="work_failed")
    assert [line["event"] for line in lines] == ["work_failed", "work_failed"]
