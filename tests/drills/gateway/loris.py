"""`python -m tests.drills.gateway.loris PORT COUNT LIMIT_S`: slow-loris clients, each with a head that never ends.

What became of them as JSON: how many were connected, what statuses they were answered with, and after how many seconds.
"""

from __future__ import annotations

import asyncio
import collections
import json
import resource
import sys
import time
from typing import cast

import uvloop

_WAVE = 100  # that connect at a time
_DRIP_S = 2.0  # between two headers of one client
_BEGIN = b"GET /work/slow HTTP/1.1\r\nHost: drill\r\n"
_MORE = b"X-Slow: loris\r\n"


class Loris(asyncio.Protocol):
    def __init__(self, ended: collections.Counter[str], waits: list[float]) -> None:
        self._ended, self._waits = ended, waits
        self._status = "closed without an answer"
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._began = time.monotonic()
        self.transport.write(_BEGIN)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 "):
            self._status = data[9:12].decode()
            self._waits.append(time.monotonic() - self._began)
        self.transport.close() if self.transport else None

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self._ended[self._status] += 1

    def drip(self) -> None:
        if self.transport is not None:
            self.transport.write(_MORE)


async def run(port: int, count: int, limit_s: float) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    ended: collections.Counter[str] = collections.Counter()
    waits: list[float] = []
    all_: list[Loris] = []
    deadline = time.monotonic() + limit_s
    refused = most = 0

    async def one() -> None:
        nonlocal refused
        try:
            _, loris = await loop.create_connection(lambda: Loris(ended, waits), "127.0.0.1", port)
        except OSError:
            refused += 1
        else:
            all_.append(loris)

    dripping = loop.create_task(_drip(all_))
    for begun in range(0, count, _WAVE):
        await asyncio.gather(*(one() for _ in range(min(_WAVE, count - begun))))
        most = max(most, len(all_) - ended.total())
    while ended.total() < len(all_) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    dripping.cancel()
    told = {"connected": len(all_), "refused": refused, "at_once": most, "ended": dict(ended)}
    return {**told, "first_s": min(waits, default=0.0), "last_s": max(waits, default=0.0)}


async def _drip(all_: list[Loris]) -> None:
    """A few at a time, so that they do not all come in one moment."""
    turn = 0
    while True:
        for loris in all_[turn::20]:
            loris.drip()
        turn = (turn + 1) % 20
        await asyncio.sleep(_DRIP_S / 20)


if __name__ == "__main__":
    _, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))
    print(json.dumps(uvloop.run(run(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))))
