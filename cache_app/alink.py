"""Connections to one server for an event loop, each shared by many tasks: what they send in one turn of the loop leaves
in one write, and the replies come back in order.

redis.asyncio dials, speaks the protocol and reads replies. A task that is cancelled leaves its reply to be thrown away;
the connection goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import select
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import redis
from hiredis import pack_command

from .breaker import Breaker
from .link import IDLE_S, Command, Refused, counts, failed, succeeded

BUSY = 64  # replies that one connection owes: above, another one is opened
_GRACE_S = 0.05  # a loop that was blocked has not read yet what came meanwhile: look again before giving up


class AsyncLink:
    """The way of one event loop to one server. Raises as `link.Link`; a pipeline's error replies stand in their place."""

    is_cluster = False

    def __init__(
        self,
        name: str,
        make: Callable[[], Any],
        breaker: Breaker,
        *,
        limit: int,
        timeout_s: float,
        dial_s: float,
    ) -> None:
        """make: a connection of redis.asyncio's that is not dialled yet and has no timeout of its own."""
        self.name, self.breaker = name, breaker
        self._make, self._limit, self._timeout_s, self._dial_s = make, limit, timeout_s, dial_s
        self._loop = asyncio.get_running_loop()
        self._pipes: list[Pipe] = []

    async def call(self, *command: Any) -> Any:
        """Sent at most once: after a failure nobody knows whether the server has done it."""
        packed = pack_command(command)
        if self.breaker.in_a_row:
            self.admit()
        return await self._ask(self._pipe(), packed)

    async def read(self, *command: Any) -> Any:
        """For what changes nothing: once more when the connection turns out to have been closed."""
        packed = pack_command(command)
        if self.breaker.in_a_row:
            self.admit()
        pipe = self._pipe()
        was_open = pipe.is_dialled
        try:
            return await self._ask(pipe, packed)
        except redis.ConnectionError as error:
            if not was_open or type(error) is not redis.ConnectionError:
                raise
        return await self._ask(self._pipe(), packed)

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """One round trip, sent at most once."""
        if not commands:
            return []
        packed = b"".join([pack_command(command) for command in commands])
        if self.breaker.in_a_row:
            self.admit()
        batch = Batch(self._loop.create_future(), len(commands))
        self._pipe().send(packed, batch, len(commands))
        replies: list[Any] = await self._outcome(batch.future)
        return replies

    async def primaries(self) -> list[AsyncLink]:
        return [self]

    async def aclose(self) -> None:
        pipes, self._pipes = self._pipes, []
        for pipe in pipes:
            await pipe.aclose()

    def admit(self) -> None:
        now = self._loop.time()  # monotonic, as the threads' clock
        if not self.breaker.allows(now):
            raise Refused(f"the breaker of {self.name} is open: {self.breaker.why(now)}")

    async def _ask(self, pipe: Pipe, packed: bytes) -> Any:
        future = self._loop.create_future()
        pipe.send(packed, future, 1)
        return await self._outcome(future)

    async def _outcome(self, future: asyncio.Future[Any]) -> Any:
        try:
            reply = await future
        except redis.RedisError as error:
            if _is_reply(error):  # a lost connection is counted once, however many it takes along
                self._answered(error)
            raise
        except asyncio.CancelledError:
            if self.breaker.in_a_row:
                self.breaker.released()
            raise
        if self.breaker.in_a_row:
            succeeded(self)
        return reply

    def _answered(self, error: redis.RedisError) -> None:
        if counts(error):
            self._lost(error)
        elif self.breaker.in_a_row:
            succeeded(self)

    def _pipe(self) -> Pipe:
        for pipe in self._pipes:
            if pipe.waiting:
                if len(pipe.waiting) < BUSY and pipe.is_open:
                    return pipe
            elif pipe.is_sound:
                return pipe
        self._pipes = [pipe for pipe in self._pipes if pipe.waiting or pipe.is_sound]
        if len(self._pipes) >= self._limit:
            return min(self._pipes, key=lambda pipe: len(pipe.waiting))
        self._pipes.append(Pipe(self._make(), self._lost, timeout_s=self._timeout_s, dial_s=self._dial_s))
        return self._pipes[-1]

    def _lost(self, error: BaseException) -> None:
        """Once per connection, however many tasks it takes along."""
        if counts(error):
            failed(self, self._loop.time(), error)


class Batch:
    """The replies of one pipeline, until all of them are there."""

    __slots__ = ("_missing", "_replies", "future")

    def __init__(self, future: asyncio.Future[Any], count: int) -> None:
        self.future, self._missing = future, count
        self._replies: list[Any] = []

    def add(self, reply: Any) -> None:
        self._replies.append(reply)
        self._missing -= 1
        if not self._missing and not self.future.done():
            self.future.set_result(self._replies)


class Pipe:
    """One connection: a task dials and writes, another one reads, and a timer watches how long a reply is owed."""

    def __init__(
        self, connection: Any, lost: Callable[[BaseException], None], *, timeout_s: float, dial_s: float
    ) -> None:
        self._connection, self._told = connection, lost
        self._timeout_s, self._dial_s = timeout_s, dial_s
        self._loop = loop = asyncio.get_running_loop()
        self.waiting: deque[asyncio.Future[Any] | Batch] = deque()
        self.is_open, self.is_dialled, self._is_broken = True, False, False
        self._heard_at = loop.time()  # a reply came, or the first one became owed
        self._poll: select.poll | None = None
        self._outbox: list[bytes] = []
        self._mail = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._was_late = False
        self._reader: asyncio.Task[None] | None = None
        self._writer = loop.create_task(self._run())

    @property
    def is_sound(self) -> bool:
        """For one that owes nothing: whether it may be used again. If not, it is closed."""
        if not self.is_open:
            return False
        # The server may have hung up in this very turn of the loop; nothing else can be there to read.
        if self._loop.time() - self._heard_at > IDLE_S or (self._poll is not None and self._poll.poll(0)):
            self.close(redis.ConnectionError("closed by the server, or after a long silence"))
        return self.is_open

    def send(self, packed: bytes, entry: asyncio.Future[Any] | Batch, count: int) -> None:
        """entry: gets the next `count` replies."""
        if not self.waiting:
            self._heard_at = self._loop.time()
            if self._timer is None:
                self._timer = self._loop.call_later(self._timeout_s, self._check)
        if count == 1:
            self.waiting.append(entry)
        else:
            self.waiting.extend([entry] * count)
        self._outbox.append(packed)
        self._mail.set()

    def close(self, error: BaseException) -> None:
        """Every task that waits gets the error; what they sent may or may not have been done."""
        if not self.is_open:
            return
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
        for task in (self._reader, self._writer):
            if task is not None and task is not _current_task(self._loop):
                task.cancel()
        owed, self.waiting = self.waiting, deque()
        for entry in owed:
            future = entry.future if type(entry) is Batch else entry
            if not future.done():  # type: ignore[union-attr]
                future.set_exception(type(error)(*error.args))  # type: ignore[union-attr]

    async def aclose(self) -> None:
        self.close(redis.ConnectionError("closed"))
        with contextlib.suppress(asyncio.CancelledError):
            await self._writer

    async def _run(self) -> None:
        try:
            await self._dial()
            self._reader = self._loop.create_task(self._read())
            while True:
                await self._mail.wait()
                self._mail.clear()
                packed, self._outbox = self._outbox, []
                await self._connection.send_packed_command(packed, check_health=False)
        except (redis.RedisError, OSError) as error:
            self._break(error)
        except RuntimeError as error:  # uvloop's word for a transport that was closed under the writer
            self._break(redis.ConnectionError(str(error)))
        finally:
            self.close(redis.ConnectionError("the event loop ended"))
            # TLS says goodbye, and wants an answer: one that broke is not waited for.
            await self._connection.disconnect(nowait=self._is_broken)

    async def _dial(self) -> None:
        try:
            async with asyncio.timeout(self._dial_s):
                await self._connection.connect()
        except TimeoutError:
            raise redis.TimeoutError("Timeout connecting to server") from None
        self.is_dialled = True
        self._poll = _poll_of(self._connection)

    async def _read(self) -> None:
        read, loop = self._connection.read_response, self._loop
        try:
            while True:
                try:
                    reply: Any = await read(timeout=math.inf, disconnect_on_error=False)
                except redis.RedisError as error:
                    if not _is_reply(error):
                        raise
                    reply = error
                self._heard_at = loop.time()
                self._deliver(reply)
        except (redis.RedisError, OSError) as error:
            self._break(error)

    def _deliver(self, reply: Any) -> None:
        if not self.waiting:
            raise redis.ConnectionError("a reply came that nobody had asked for")
        entry = self.waiting.popleft()
        if type(entry) is Batch:
            entry.add(reply)
        elif entry.done():  # type: ignore[union-attr]
            return  # its task was cancelled
        elif isinstance(reply, redis.RedisError):
            entry.set_exception(reply)  # type: ignore[union-attr]
        else:
            entry.set_result(reply)  # type: ignore[union-attr]
        if isinstance(reply, redis.ReadOnlyError):
            raise redis.ConnectionError("this server is no primary any more")

    def _check(self) -> None:
        """How long has the oldest reply been owed? As they come in order, that is the silence since the last one."""
        self._timer = None
        if not self.waiting:
            return
        left_s = self._heard_at + self._timeout_s - self._loop.time()
        if left_s <= 0 and self._was_late:
            self._break(redis.TimeoutError(f"no reply within {self._timeout_s} s"))
            return
        self._was_late = left_s <= 0
        self._timer = self._loop.call_later(_GRACE_S if self._was_late else left_s, self._check)

    def _break(self, error: BaseException) -> None:
        if not self.is_open:
            return
        self._is_broken = True
        if self.waiting:  # one that closes while nobody needs it has not failed
            self._told(error)
        self.close(error)


def _is_reply(error: redis.RedisError) -> bool:
    """The server said so (LOADING, NOAUTH and others are connection errors to redis-py), rather than it went away."""
    return isinstance(error, redis.ResponseError) or error.status_code is not None


def _poll_of(connection: Any) -> select.poll | None:
    writer = getattr(connection, "_writer", None)
    socket = None if writer is None else writer.get_extra_info("socket")
    if socket is None or not hasattr(select, "poll"):
        return None
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLIN)
    return poll


def _current_task(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any] | None:
    with contextlib.suppress(RuntimeError):
        return asyncio.current_task(loop)
    return None
