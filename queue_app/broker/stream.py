"""The stream of lifecycle events, `brain.events`: on the broker's server with our own transport, else on REDIS_URL's.

With our transport events ride in the transactions of the broker; with every other broker they are buffered and sent to
the Redis that the platform has anyway.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from celery import current_app
from kombu.connection import Connection
from kombu.exceptions import KombuError
from kombu.utils.json import loads
from redis.exceptions import RedisError

from cache_app import connections as pools
from queue_app.transport import SCHEMES
from queue_app.transport.envelope import Message

from .events import Event, pack

log = structlog.get_logger(__name__)

KEY = "brain.events"
MOST_ENTRIES = 100_000  # about; a recorder that is away for longer loses the oldest, which it reports
_DOWN_S = 1.0
_down_until = 0.0
_broker: tuple[object, Connection] | None = None


def rides() -> bool:
    """Whether the broker is reached through our transport, so that events travel with publications and acks."""
    return _reaches_ours(current_app._get_current_object())


@functools.lru_cache(maxsize=4)
def _reaches_ours(app: Any) -> bool:
    # Celery makes a connection, and looks its URL up in six places: a third of what publishing a task takes.
    return app.connection_for_write().transport_cls in SCHEMES


def add(pipe: Any, key: str, fields: dict[str, bytes | str]) -> None:
    """Put an entry into a pipeline, or send it with a client."""
    pipe.xadd(key, fields, maxlen=MOST_ENTRIES, approximate=True)


@contextmanager
def client(*, waits: bool = False) -> Iterator[tuple[Any, str]]:
    """A Redis client for the stream's server, and the stream's key there. Safe in threads and after a fork.

    waits: for a command that blocks.
    """
    if not rides():
        yield pools.client(pool="wait" if waits else "main"), KEY
        return
    channel: Any = _connection().default_channel  # of our transport
    try:
        with channel.conn_or_acquire() as found:
            yield found, channel.full_key(KEY)
    except channel.connection_errors:
        forget()
        raise


def message(raw: bytes) -> Message:
    """Kombu's, of an envelope of our transport; where events ride. Raises BadEnvelope."""
    return Message(loads(raw.decode()), channel=_connection().default_channel)


def tell(told: list[Event], *, worker: str = "") -> bool:
    """Send events now. Whether they are in the stream; for a moment after a failure nobody waits for it again."""
    global _down_until
    if time.monotonic() < _down_until:
        return False
    try:
        with client() as (found, key):
            add(found, key, pack(worker, told))
    except (RedisError, OSError, KombuError) as error:
        _down_until = time.monotonic() + _DOWN_S
        log.warning("events_not_sent", events=len(told), error=type(error).__name__)
        return False
    return True


def forget() -> None:
    """Connect anew next time."""
    global _broker
    if _broker is not None:
        _broker[1].release()
        _broker = None


def _connection() -> Connection:
    """This process's; a child of a fork makes its own."""
    global _broker
    from queue_app import wakeup

    key = (os.getpid(), current_app._get_current_object())
    if _broker is None or _broker[0] != key:
        _broker = key, wakeup.connection()
    return _broker[1]
