"""Changes of the configuration as they are made: told over Valkey, and looked for in the database where that fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import redis
import structlog

from cache_app import addresses, seldom
from cache_app import connections as store

from .changes import CHANNEL
from .conf import conf

log = structlog.get_logger(__name__)

_SILENCE_S = (
    1.0  # without a word: then the server is asked for one, and left when it stays silent as long again
)
_PAUSE_S = 0.25  # before a store that is away is listened to again


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
            try:
                await refresh()
            except Exception as error:  # noqa: BLE001  (the snapshot in use is as good as it was)
                seldom.warn(log, "refresh_failed", exc_info=error)


async def _listen(told: asyncio.Event) -> None:
    url = ""
    while True:
        try:
            url = await _url_to_hear(url)
            async with store.aclient(url, pool="wait").pubsub() as channel:
                await channel.subscribe(CHANNEL)
                await _hear(channel, told)
        except (
            redis.ResponseError
        ) as error:  # a user who may not listen, for example: nobody will mend that by waiting
            seldom.warn(log, "configuration_channel_refused", error=str(error))
        except (redis.RedisError, OSError) as error:
            log.debug("configuration_channel_lost", error=type(error).__name__)
        except Exception as error:  # noqa: BLE001  (what is not told is found in the database)
            seldom.warn(log, "configuration_channel_failed", exc_info=error)
        if _is_cancelled():  # redis-py may have swallowed it, see ticker.py
            raise asyncio.CancelledError
        await asyncio.sleep(_PAUSE_S)


async def _url_to_hear(last: str) -> str:
    """Of a cluster any node, as each of them hears what is published on another; not the one that was lost last."""
    url = store.default_url()
    servers = addresses.parse(url)
    if servers.kind != addresses.CLUSTER:
        return url
    link: Any = store.alink(url)
    await link.primaries()
    nodes = [addresses.of_node(servers, node) for node in link.slots.primaries]
    return random.choice([node for node in nodes if node != last] or nodes)  # noqa: S311


async def _hear(channel: Any, told: asyncio.Event) -> None:
    """Until the server is gone, or silent: a host that was switched off closes no connection."""
    is_asked = False
    while not _is_cancelled():
        message = await channel.get_message(timeout=_SILENCE_S)
        if message is None and is_asked:
            raise redis.ConnectionError("the server has gone silent")
        if message is None:
            await channel.ping()
        elif message["type"] != "pong":  # listening has just begun: a change may have been made before
            told.set()
        is_asked = message is None


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
