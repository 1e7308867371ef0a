"""uvicorn's server, listening by ourselves: it passes the loop no time for a TLS handshake, which then may take a minute."""

from __future__ import annotations

import asyncio
import socket

import uvicorn

from .conf import conf


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
            self.servers.append(
                await loop.create_server(
                    connection,
                    sock=listener,
                    ssl=config.ssl,
                    # As long as the headers that come behind it may take.
                    ssl_handshake_timeout=conf().HEADER_TIMEOUT_S if config.ssl else None,
                    backlog=config.backlog,
                )
            )
