from __future__ import annotations

import asyncio
import gc

import pytest

from orm_app.awaiting import Pending, dual


async def _one() -> int:
    return 1


async def test_pending__in_tasks_groups_and_time_limits__as_a_coroutine():
    loop = asyncio.get_running_loop()
    loop.set_debug(True)  # its messages ask a coroutine for its name
    assert await loop.create_task(Pending(_one, "x")) == 1
    async with asyncio.TaskGroup() as group:
        task = group.create_task(Pending(_one, "x"))
    assert task.result() == 1
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(Pending(lambda: asyncio.sleep(60), "x"), 0.01)


async def test_pending__its_task_is_cancelled_before_it_began_or_it_is_closed__nothing_is_said():
    task = asyncio.get_running_loop().create_task(Pending(_one, "x"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    Pending(_one, "x").close()
    gc.collect()


async def test_dual__within_a_loop__begins_when_it_is_awaited():
    begun = []
    pending = dual(lambda: begun.append(1), "x")
    assert begun == []
    await pending
    assert begun == [1]


def test_dual__without_a_loop__the_value():
    assert dual(lambda: 5, "x") == 5
