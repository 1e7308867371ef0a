"""Changes of the configuration as they are made: told over Valkey, and looked for in the database where that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from redis.exceptions import RedisError

from cache_app import connections as store

from .changes import CHANNEL
from .conf import conf

log = structlog.get_logger(__name__)

_LISTEN_S = 5.0  # for one message; a connection that died is noticed then
_PAUSE_S = 1.0  # before a store that is away is listened to again


async def follow(refresh: Callable[[], Awaitable[None]]) -> None:
    """Call `refresh` when a change is told, and every SNAPSHOT_POLL_S whether one is told or not. Until cancelled."""
    told = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(_listen(told))
        while True:
            try:
                async with asyncio.timeout(conf().SNAPSHOT_POLL_S):
                    await told.wait()
            except TimeoutError:
                pass
            told.clear()
            await refresh()


async def _listen(told: asyncio.Event) -> None:
    while True:
        try:
            async with store.aclient(pool="wait").pubsub(ignore_subscribe_messages=True) as channel:
                await channel.subscribe(CHANNEL)
                told.set()  # one may have been made while nobody listened
                while not _is_cancelled():
                    if await channel.get_message(timeout=_LISTEN_S) is not None:
                        told.set()
        except (RedisError, OSError) as error:
            log.debug("configuration_channel_lost", error=type(error).__name__)
        if _is_cancelled():  # redis-py may have swallowed it, see ticker.py
            raise asyncio.CancelledError
        await asyncio.sleep(_PAUSE_S)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
