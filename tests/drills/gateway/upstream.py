"""`python -m tests.drills.gateway.upstream PORT FILE`: a target that writes down each request's id, then answers with it.

    /…/ID[?ms=MILLISECONDS][&pieces=N]    the id as the body, after so long, in so many chunks
    Upgrade: websocket                    a mirror

SIGTERM stops it in order: what it has read is answered, then it ends.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from typing import cast
from urllib.parse import parse_qsl

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PIECE = b"." * 512


class Server:
    def __init__(self, file: str) -> None:
        # Appended in one write each, so that a kill -9 leaves whole lines.
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.open: set[Conversation] = set()
        self.stopping = asyncio.Event()

    def write_down(self, id: str) -> None:
        os.write(self._file, f"{id}\n".encode())

    async def run(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        listening = await loop.create_server(lambda: Conversation(self), "127.0.0.1", port, backlog=1024)
        await self.stopping.wait()
        listening.close()
        for conversation in list(self.open):
            conversation.leave()
        while self.open:
            await asyncio.sleep(0.01)


class Conversation(asyncio.Protocol):
    """One connection; its requests come one after another, as the gateway pipelines nothing."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._received = b""
        self._is_mirror = False
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._server.open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._server.open.discard(self)
        if self._answering is not None:
            self._answering.cancel()

    def leave(self) -> None:
        if self._is_mirror or self._answering is None:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._is_mirror:
            self.transport.write(data)
            return
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = _LENGTH.search(head)
        size = int(length[1]) if length else 0
        if len(rest) < size:
            return
        self._received = rest[size:]
        if b"\r\nupgrade: websocket" in head.lower():
            self._is_mirror = True
            self.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            )
            return
        target = head.split(b" ", 2)[1].decode()
        self._answering = asyncio.get_running_loop().create_task(self._answer(target))

    async def _answer(self, target: str) -> None:
        path, _, query = target.partition("?")
        asked = dict(parse_qsl(query))
        id = path.rpartition("/")[2]
        self._server.write_down(id)
        await asyncio.sleep(float(asked.get("ms", 0)) / 1000)
        pieces = int(asked.get("pieces", 0))
        if pieces:
            await self._stream(id, pieces)
        else:
            self.transport.write(self._head(b"Content-Length: %d" % len(id)) + id.encode())
        self._answering = None
        if self._server.stopping.is_set():
            self.transport.close()

    async def _stream(self, id: str, pieces: int) -> None:
        self.transport.write(self._head(b"Transfer-Encoding: chunked"))
        for _ in range(pieces):
            self.transport.write(b"%x\r\n%b\r\n" % (len(_PIECE), _PIECE))
            await asyncio.sleep(0.02)
        self.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(id), id.encode()))

    def _head(self, framing: bytes) -> bytes:
        end = b"Connection: close\r\n" if self._server.stopping.is_set() else b""
        return b"HTTP/1.1 200 OK\r\n%b\r\n%b\r\n" % (framing, end)


async def _serve(port: int, file: str) -> None:
    await Server(file).run(port)


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2]))
