from __future__ import annotations

import asyncio
import contextlib

import pytest

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
        async with asyncio.timeout(1):
            await task
    assert len(rounds) == 3


async def test_repeat__work_fails__so_does_it() -> None:
    async def work() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        await repeat(work, lambda: 0.0)
