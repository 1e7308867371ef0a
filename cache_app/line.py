"""A connection for an event loop whose replies come by callback: neither a task nor a future stands between a batch of
commands and their replies. For one caller that sends batch after batch on a hot path; others share an AsyncLink.

redis.asyncio dials (TLS, AUTH, SELECT, Sentinel); then the line takes the transport over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import hiredis
import redis
from redis.exceptions import InvalidResponse, NoScriptError, ResponseError

Told = Callable[[list[Any], Exception | None], None]
"""Gets the replies in order, an error reply of the server's in its place; or the error that took them away."""
_NOTHING = object()


class Line(asyncio.Protocol):
    """One batch at a time. It has no timeouts: whoever waits closes it."""

    def __init__(self, connection: Any) -> None:
        """connection: of redis.asyncio's, not dialled yet."""
        self._connection = connection
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=_error, notEnoughData=_NOTHING
        )
        self._replies: list[Any] = []
        self._owed = 0
        self._told: Told | None = None
        self._transport: asyncio.Transport | None = None

    async def dial(self) -> None:
        """Raises redis.RedisError or OSError."""
        await self._connection.connect()
        transport = cast(asyncio.Transport, self._connection._writer.transport)
        transport.set_protocol(self)
        transport.resume_reading()  # redis-py's stream may have paused it
        self._transport = transport

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, packed: bytes, count: int, told: Told) -> None:
        """packed: `count` commands. `told` is called once. Only on an open line that owes nothing."""
        assert self._transport is not None and not self._owed  # noqa: S101, PT018  (as said)
        self._owed, self._told, self._replies = count, told, []
        self._transport.write(packed)

    def close(self, error: Exception | None = None) -> None:
        """Whoever waits gets the error; what was sent may or may not have been done."""
        if self._transport is not None:
            self._transport.abort()
        # redis-py complains about a connection that nobody closed. It has nothing to close any more.
        self._connection._reader = self._connection._writer = None
        self._tell(error or redis.ConnectionError("closed"))

    def data_received(self, data: bytes) -> None:
        replies, reader = self._replies, self._reader
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _NOTHING:
                if type(reply) is not hiredis.PushNotification:
                    replies.append(reply)
        except InvalidResponse as error:
            self.close(error)
            return
        if len(replies) > self._owed:
            self.close(InvalidResponse("a reply came that nobody had asked for"))
        elif replies and len(replies) == self._owed:
            self._tell(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.close(redis.ConnectionError("the connection was lost"))

    def _tell(self, error: Exception | None) -> None:
        told, self._told, self._owed = self._told, None, 0
        replies, self._replies = self._replies, []
        if told is not None:
            told(replies, error)


def _error(text: str) -> ResponseError:
    return NoScriptError(text) if text.startswith("NOSCRIPT") else ResponseError(text)
