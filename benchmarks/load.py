"""A small HTTP/1.1 load generator: a fixed number of requests over a few keep-alive connections, then it stops."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .processes import Broken

TIMEOUT_S = 60.0  # for a whole burst


@dataclass(slots=True)
class Burst:
    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def per_second(self) -> float:
        return self.statuses.total() / self.seconds


def burst(
    method: str, url: str, *, count: int, connections: int, key: str, body: bytes = b"", expect: int
) -> Burst:
    """Raises Broken when an answer has another status than `expect`: a refusal is fast, and no figure."""
    parts = urlsplit(url)
    head = [f"{method} {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"X-API-Key: {key}", "Accept: */*"]
    if body:
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    request = "\r\n".join([*head, "", ""]).encode() + body
    done = asyncio.run(
        asyncio.wait_for(_burst(parts.hostname, parts.port, request, count, connections), TIMEOUT_S)
    )
    if set(done.statuses) != {expect}:
        raise Broken(f"{method} {url} was answered {dict(done.statuses)}, expected {expect} alone")
    return done


async def _burst(host: str | None, port: int | None, request: bytes, count: int, connections: int) -> Burst:
    done, left = Burst(), iter(range(count))

    async def client() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        for _ in left:
            writer.write(request)
            status, stays_open = await _answer(reader)
            done.statuses[status] += 1
            if not stays_open:
                writer.close()
                reader, writer = await asyncio.open_connection(host, port)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(connections)))
    done.seconds = time.perf_counter() - began
    return done


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Read one answer to its end: its status, and whether the connection stays open."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    else:
        await reader.readexactly(int(headers.get("content-length", "0")))
    return int(status_line.split()[1]), headers.get("connection", "").lower() != "close"
