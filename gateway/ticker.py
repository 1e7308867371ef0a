"""Work that is done again and again on an event loop until it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def repeat(work: Callable[[], Awaitable[None]], pause_s: Callable[[], float]) -> None:
    """Until cancelled, also when the work swallows the cancellation.

    Python 3.11's `asyncio.wait_for`, which redis-py sends every command with, does so when its inner task ends in the
    same turn of the loop (python/cpython#86296); the loop would then go on for ever, and whoever stops it would wait.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  (a coroutine runs in a task)
    while True:
        await work()
        if task.cancelling():
            raise asyncio.CancelledError
        await asyncio.sleep(pause_s())
