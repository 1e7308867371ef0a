"""Work that is done again and again on an event loop until it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger(__name__)


async def repeat(
    work: Callable[[], Awaitable[None]], pause_s: Callable[[], float], *, trouble: str = ""
) -> None:
    """Until cancelled, also when the work swallows the cancellation.

    trouble: the event that an error of the work is logged as, once until it has gone well again, and the work goes on;
    without one the error ends it.

    Python 3.11's `asyncio.wait_for`, which redis-py sends every command with, does so when its inner task ends in the
    same turn of the loop (python/cpython#86296); the loop would then go on for ever, and whoever stops it would wait.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  (a coroutine runs in a task)
    was_well = True
    while True:
        try:
            await work()
            was_well = True
        except Exception:
            if not trouble:
                raise
            if was_well:
                log.exception(trouble)
            was_well = False
        if task.cancelling():
            raise asyncio.CancelledError
        await asyncio.sleep(pause_s())
