"""WebSockets in a thread of their own: each sends a number through the gateway and waits for it to come back, again and again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import uvloop

_ASK = (
    b"GET %b HTTP/1.1\r\nHost: drill\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%b\r\n"
)
_LATE_S = 10.0  # for one number


@dataclass(slots=True)
class Socket:
    """rounds: numbers that came back. fault: how it ended, when it was not us; ended_at: monotonic."""

    port: int = 0
    rounds: int = 0
    fault: str = ""
    ended_at: float = 0.0


class Sockets:
    """A gateway passes bytes on as they are, so numbers do as well as frames."""

    def __init__(
        self,
        edges: Sequence[int],
        count: int,
        path: str = "/work/socket",
        pause_s: float = 0.05,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.all = [Socket() for _ in range(count)]
        self._edges, self._path, self._pause_s = tuple(edges), path.encode(), pause_s
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items()).encode()
        self._stopping = False
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()), daemon=True)

    def __enter__(self) -> Sockets:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def are_open(self) -> bool:
        return all(one.rounds for one in self.all)

    @property
    def broken(self) -> list[Socket]:
        return [one for one in self.all if one.fault]

    def stop(self) -> None:
        self._stopping = True
        self._thread.join(_LATE_S + 5)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number, one in enumerate(self.all):
                group.create_task(self._talk(one, self._edges[number % len(self._edges)]))

    async def _talk(self, one: Socket, edge: int) -> None:
        writer = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", edge)
            one.port = writer.get_extra_info("sockname")[1]
            writer.write(_ASK % (self._path, self._headers))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _LATE_S)
            if not head.startswith(b"HTTP/1.1 101 "):
                raise ValueError(head.split(b"\r\n")[0].decode("latin-1"))
            while not self._stopping:
                writer.write(b"%d;" % one.rounds)
                back = await asyncio.wait_for(reader.readuntil(b";"), _LATE_S)
                if back != b"%d;" % one.rounds:
                    raise ValueError(f"{back!r} instead of {one.rounds}")
                one.rounds += 1
                await asyncio.sleep(self._pause_s)
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            one.fault, one.ended_at = f"{type(error).__name__}: {error}", time.monotonic()
        finally:
            if writer is not None:
                writer.transport.abort()
