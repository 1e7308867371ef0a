"""uvicorn's server, listening by ourselves: it passes the loop no time for a TLS handshake, which then may take a minute, and
the loop does not count those that are under way."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable

import structlog
import uvicorn

from .conf import conf

log = structlog.get_logger(__name__)

SPARE = 16  # handshakes that may be under way when there are too many connections: their clients are told so
AT_A_TIME = 100  # connections that are taken before the others have their turn
PAUSE_S = 1.0  # where there is no descriptor left, or no memory
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """All but the listening is uvicorn's, and so is the end of it."""
        await super().startup(sockets=[])
        loop, config = asyncio.get_running_loop(), self.config

        def connection() -> asyncio.Protocol:
            made: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        for listener in sockets or ():
            if config.ssl is None:
                plain = await loop.create_server(connection, sock=listener, backlog=config.backlog)
                self.servers.append(plain)
            else:
                secure = Handshakes(connection, listener, config, lambda: len(self.server_state.connections))
                self.servers.append(secure)  # type: ignore[arg-type]  # closed and waited for, no more


class Handshakes:
    """Takes connections and counts them from there on: the loop would make each known when its handshake is done, and only
    the limit of open files would bound those that never are. At most MAX_CONNECTIONS, with those that are `connected`: for
    one too many the handshake goes that has taken longest, as whoever means it is done within a second."""

    def __init__(
        self,
        protocol: Callable[[], asyncio.Protocol],
        listener: socket.socket,
        config: uvicorn.Config,
        connected: Callable[[], int],
    ) -> None:
        self._protocol, self._listener, self._connected = protocol, listener, connected
        self._tls, self._loop = config.ssl, asyncio.get_running_loop()
        self._under_way: dict[asyncio.Task[None], socket.socket] = {}  # the oldest first
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        listener.listen(config.backlog)
        self._loop.add_reader(listener, self._take)

    def close(self) -> None:
        if self._pause is None:
            self._loop.remove_reader(self._listener)
        else:
            self._pause.cancel()
        for taken in self._under_way.values():
            _cut(taken)

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _take(self) -> None:
        for _ in range(AT_A_TIME):
            try:
                taken, _ = self._listener.accept()
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._rest(error)
                return  # others were quicker, or the client has gone
            if len(self._under_way) >= max(SPARE, conf().MAX_CONNECTIONS - self._connected()):
                _cut(self._under_way.pop(next(iter(self._under_way))))
            task = self._loop.create_task(self._shake(taken))
            self._under_way[task] = taken
            task.add_done_callback(lambda done: self._under_way.pop(done, None))

    def _rest(self, error: OSError) -> None:
        """The listener stays readable: to try again at once would be all that this process does."""
        log.error("not_accepting", error=error.strerror, pause_s=PAUSE_S)
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._take)

    async def _shake(self, taken: socket.socket) -> None:
        # As long as the headers that come behind it may take.
        patience_s = conf().HEADER_TIMEOUT_S
        try:
            await self._loop.connect_accepted_socket(
                self._protocol, taken, ssl=self._tls, ssl_handshake_timeout=patience_s
            )
        except OSError:  # ssl.SSLError is one
            taken.close()


def _cut(taken: socket.socket) -> None:
    """So that the loop notices, and cleans up: it would not when the task were cancelled."""
    with contextlib.suppress(OSError):  # the client was quicker
        taken.shutdown(socket.SHUT_RDWR)
