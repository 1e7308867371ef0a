"""Clients in a thread of their own: keep-alive HTTP/1.1 without pipelining, and the fate of every request."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import uvloop

from . import client
from .verdict import Fate

MIXED = ("GET",) * 8 + ("PUT", "POST")
_BODY_BYTES = 200
_ids = itertools.count()


@dataclass(frozen=True, slots=True)
class Kind:
    """What is asked. ms: how long the target takes, at least and at most; pieces: of a streamed answer, in one of
    `streamed` requests. pause_s: between two requests of a client."""

    path: str = "/work"
    methods: Sequence[str] = MIXED
    headers: Mapping[str, str] = field(default_factory=dict)
    ms: tuple[int, int] = (2, 30)
    pieces: int = 5
    streamed: int = 10
    pause_s: float = 0.01


class Load:
    """`fates` grows while it runs. keep_alive: requests of one connection, at most."""

    def __init__(
        self, ports: Sequence[int], clients: int = 12, kind: Kind | None = None, *, keep_alive: int = 500
    ) -> None:
        self.fates: list[Fate] = []
        self._ports, self._clients, self._kind, self._keep_alive = (
            tuple(ports),
            clients,
            kind or Kind(),
            keep_alive,
        )
        self._dice = random.Random(1)
        self._stopping = False
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()), daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> list[Fate]:
        """No new requests; those under way get their answers."""
        self._stopping = True
        self._thread.join(client.NO_ANSWER_S + 5)
        return self.fates

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._clients):
                group.create_task(self._client(self._ports[number % len(self._ports)]))

    async def _client(self, edge: int) -> None:
        await asyncio.sleep(self._dice.random() * self._kind.pause_s)
        while not self._stopping:
            try:
                connection = await client.connect(edge)
            except OSError as error:
                now = time.monotonic()
                fault = f"not connected: {type(error).__name__}"
                self.fates.append(
                    Fate(_id(), "GET", 0, fault=fault, is_whole=False, edge=edge, at=now, until=now)
                )
                await asyncio.sleep(0.05)
                continue
            try:
                await self._talk(connection)
            finally:
                connection.close()

    async def _talk(self, connection: client.Connection) -> None:
        for _ in range(self._keep_alive):
            if self._stopping or connection.is_over:
                return
            self.fates.append(await connection.ask(*self._request()))
            await asyncio.sleep(self._kind.pause_s)

    def _request(self) -> tuple[Fate, bytes]:
        kind, dice = self._kind, self._dice
        method, id = dice.choice(kind.methods), _id()
        query = f"?ms={dice.randint(*kind.ms)}"
        if kind.streamed and not dice.randrange(kind.streamed):
            query += f"&pieces={kind.pieces}"
        body = b"x" * _BODY_BYTES if method in ("PUT", "POST") else b""
        data = client.request(method, f"{kind.path}/{id}{query}", kind.headers, body)
        return Fate(id, method, 0, is_whole=False), data


def _id() -> str:
    return f"r{next(_ids)}"
