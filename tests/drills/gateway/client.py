"""One keep-alive connection of HTTP/1.1, read strictly."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .verdict import Fate

NO_ANSWER_S = 20.0


def request(method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: drill",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "\r\n"]).encode() + body


async def connect(edge: int) -> Connection:
    """Raises OSError."""
    async with asyncio.timeout(NO_ANSWER_S):
        return Connection(edge, *await asyncio.open_connection("127.0.0.1", edge))


class Connection:
    """is_over: it carries no other request."""

    def __init__(self, edge: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._edge, self._reader, self._writer = edge, reader, writer
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = writer.get_extra_info("sockname")[1]
        self.is_over = False

    def close(self) -> None:
        self._writer.transport.abort()

    async def ask(self, fate: Fate, data: bytes) -> Fate:
        """The same fate with all that came of the request."""
        at = time.monotonic()
        found: dict[str, Any] = {}
        fault = ""
        try:
            self._writer.write(data)
            async with asyncio.timeout(NO_ANSWER_S):
                await self._answer(fate.method, found)
        except TimeoutError:
            fault = "no answer in time"
        except asyncio.IncompleteReadError:
            fault = "closed"
        except (OSError, ValueError, KeyError, asyncio.LimitOverrunError) as error:
            fault = type(error).__name__
        self.is_over = self.is_over or bool(fault)
        return replace(
            fate, **found, fault=fault, edge=self._edge, port=self.port, at=at, until=time.monotonic()
        )

    async def _answer(self, method: str, found: dict[str, Any]) -> None:
        """Puts in what is known as it comes, as the connection may break at any point."""
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)
        }
        found["status"] = status = int(lines[0].split(" ")[1])
        found |= {name: headers.get(header, "") for name, header in _TOLD.items()}
        self.is_over = headers.get("connection", "").lower() == "close"
        body = b"" if method == "HEAD" or status in (204, 304) else await self._body(headers)
        found["is_whole"] = True
        if status == 200:
            found["told"] = body.rpartition(b".")[2].decode("latin-1")

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        if "content-length" in headers:
            return await self._reader.readexactly(int(headers["content-length"]))
        if headers["transfer-encoding"] != "chunked":
            raise ValueError("no framing")
        body = b""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)
        return body


_TOLD = {"code": "x-brain-error", "target": "x-upstream", "mark": "x-mark"}
