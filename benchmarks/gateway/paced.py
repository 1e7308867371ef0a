"""`python -m benchmarks.gateway.paced`: requests at a given rate, whatever becomes of them; a plan as JSON on stdin.

Open loop: request n is due at n / rate, and its latency counts from then, also while it waits for a connection to get
free. A generator that sends the next request when the last one is answered leaves out the ones that a pause held up
(coordinated omission). select() waits to the microsecond, the event loops' timers to the millisecond.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import itertools
import json
import math
import random
import re
import select
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

GRACE_S = 10.0  # for the last answers
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Plan:
    """ports: taken in turn, or at random; the requests of `file` likewise in turn. connections: to each port."""

    ports: tuple[int, ...]
    file: str
    rate: float
    seconds: float
    connections: int
    at_random: bool = False


class Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port, self.due, self._received = port, 0.0, b""

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self.socket.sendall(request)

    def status(self) -> int | None:
        """The answer's status once it is complete. Raises OSError when the connection ended instead."""
        piece = self.socket.recv(65536)
        if not piece:
            raise ConnectionResetError("closed before an answer")
        self._received += piece
        size = answer_bytes(self._received)
        if size is None or len(self._received) < size:
            return None
        status, self._received = int(self._received[9:12]), b""
        return status


def answer_bytes(received: bytes) -> int | None:
    """How long the answer is as a whole, None while that cannot be told."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    length = _LENGTH.search(received, 0, end + 2)
    if length:
        return end + 4 + int(length[1])
    return len(received) if received.endswith(b"0\r\n\r\n") else None  # chunked


def run(plan: Plan) -> dict[str, Any]:
    """statuses by number (0: the connection broke), percentiles of the latency, and how long it took."""
    with contextlib.closing(_Run(plan)) as running:
        return running.to_its_end()


class _Run:
    def __init__(self, plan: Plan) -> None:
        self._plan, self._total = plan, round(plan.rate * plan.seconds)
        self._requests, self._ports = _requests(plan.file), _ports(plan)
        self._idle = {port: [Connection(port) for _ in range(plan.connections)] for port in plan.ports}
        self._waiting: dict[int, collections.deque[float]] = {
            port: collections.deque() for port in plan.ports
        }
        self._busy: dict[socket.socket, Connection] = {}
        self._statuses: collections.Counter[int] = collections.Counter()
        self._latencies: list[float] = []
        self._due = 0  # how many have been so far
        self._began = time.perf_counter() + 0.05

    def to_its_end(self) -> dict[str, Any]:
        deadline = self._began + self._plan.seconds + GRACE_S
        while self._statuses.total() < self._total and time.perf_counter() < deadline:
            self._queue()
            self._send()
            for ready in select.select(list(self._busy), [], [], self._pause_s())[0]:
                self._receive(self._busy[ready])
        return outcome(self._statuses, self._latencies, self._total, time.perf_counter() - self._began)

    def close(self) -> None:
        for connection in itertools.chain(self._busy.values(), *self._idle.values()):
            connection.socket.close()

    def _next_due(self) -> float:
        return self._began + self._due / self._plan.rate

    def _queue(self) -> None:
        now = time.perf_counter()
        while self._due < self._total and self._next_due() <= now:
            self._waiting[next(self._ports)].append(self._next_due())
            self._due += 1

    def _send(self) -> None:
        for port, dues in self._waiting.items():
            idle = self._idle[port]
            while dues and idle:
                connection = idle.pop()
                connection.send(next(self._requests), dues.popleft())
                self._busy[connection.socket] = connection

    def _pause_s(self) -> float:
        return max(0.0, self._next_due() - time.perf_counter()) if self._due < self._total else 0.1

    def _receive(self, connection: Connection) -> None:
        try:
            status = connection.status()
        except OSError:
            status = 0
        if status is None:
            return
        self._statuses[status] += 1
        self._latencies.append(time.perf_counter() - connection.due)
        del self._busy[connection.socket]
        if not status:
            connection.socket.close()
            connection = Connection(connection.port)
        self._idle[connection.port].append(connection)


def outcome(
    statuses: collections.Counter[int], latencies: Sequence[float], total: int, seconds: float
) -> dict[str, Any]:
    ordered = sorted(latencies)
    ranks = {
        f"p{share}_us": ordered[math.ceil(share / 100 * len(ordered)) - 1] * 1e6 if ordered else 0.0
        for share in (50, 99)
    }
    lost = total - statuses.total()
    return {"statuses": dict(statuses), "sent": total, "lost": lost, "seconds": seconds, **ranks}


def _ports(plan: Plan) -> Iterator[int]:
    if plan.at_random:
        chance = random.Random(1)
        return iter(lambda: chance.choice(plan.ports), None)
    return itertools.cycle(plan.ports)


def _requests(file: str) -> Iterator[bytes]:
    with open(file) as lines:
        pairs = [line.split() for line in lines]
    return itertools.cycle(
        [
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
            for path, token in pairs
        ]
    )


if __name__ == "__main__":
    given = json.load(sys.stdin)
    gc.disable()  # its pauses would be somebody's latency
    print(json.dumps(run(Plan(**given | {"ports": tuple(given["ports"])}))))
