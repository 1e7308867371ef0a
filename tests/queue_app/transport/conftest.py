"""Connections of our transport and of stock Kombu's to this run's Valkey, each test behind a key prefix of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection

from queue_app.transport import register, transport_url
from tests import warm

register()

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_S = 60.0
Connect = Callable[..., Connection]


def until(condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s"
        time.sleep(0.02)
    return found


def stock_url(url: str) -> str:
    """The same server, as stock Kombu spells it."""
    return transport_url(url).removeprefix("brain-")


class Server:
    """The server's side of one test: what lies under which key."""

    def __init__(self, url: str, prefix: str) -> None:
        self.redis = redis.Redis.from_url(url)
        self.prefix = prefix

    def bodies(self, name: str = "q", step: int = 0) -> list[bytes]:
        """The messages of a queue's list, the next one to be claimed first."""
        key = f"{self.prefix}{name}" + (f"\x06\x16{step}" if step else "")
        return list(reversed(self.redis.lrange(key, 0, -1)))

    def tokens(self, queue: str = "q") -> int:
        return int(self.redis.llen(f"{self.prefix}{queue}\x06\x16wake"))

    def unacked(self) -> set[bytes]:
        """Tags; fails when the hash and its index disagree."""
        with self.redis.pipeline() as both:
            both.hkeys(f"{self.prefix}unacked").zrange(f"{self.prefix}unacked_index", 0, -1)
            tags, index = map(set, both.execute())
        assert tags == index
        return tags

    def push(self, raw: bytes | str, queue: str = "q") -> None:
        """As a foreign publisher would: no token."""
        self.redis.lpush(f"{self.prefix}{queue}", raw)

    def keys(self) -> set[str]:
        return {
            key.decode().removeprefix(self.prefix) for key in self.redis.scan_iter(f"{self.prefix}*", 1000)
        }


@pytest.fixture
def server(valkey: str, prefix: str) -> Iterator[Server]:
    server = Server(valkey, prefix)
    yield server
    for key in server.redis.scan_iter(f"{prefix}*", 1000):
        server.redis.delete(key)
    server.redis.close()


@pytest.fixture
def connect(valkey: str, prefix: str) -> Iterator[Connect]:
    """connect(stock=False, **transport options) → a Connection to the test's part of the server; closed at its end."""
    with contextlib.ExitStack() as stack:

        def opened(*, stock: bool = False, url: str = valkey, **options: Any) -> Connection:
            broker = stock_url(url) if stock else transport_url(url)
            connection = Connection(broker, transport_options={"global_keyprefix": prefix} | options)
            stack.callback(connection.release)
            return connection

        yield opened


class Worker:
    """A `celery worker` of celery_app.py in a session of its own."""

    def __init__(self, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        self._log = log
        command = [sys.executable, "-m", "celery", "-A", "tests.queue_app.transport.celery_app", "worker"]
        with log.open("wb") as out:
            self.process = warm.Popen(
                [*command, "-l", "INFO", *arguments],
                cwd=ROOT,
                env=os.environ | environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = TIMEOUT_S) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout_s)


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """start_worker("-P", "threads", broker=url, OPTION="…") → a worker; gone when the test ends."""
    started: list[Worker] = []

    def start(*arguments: str, broker: str, ready: bool = True, **environment: str) -> Worker:
        name = f"w{len(started)}"
        worker = Worker(
            [*arguments, "-n", f"{name}@test", "--without-mingle", "--without-gossip"],
            {"BROKER": broker} | environment,
            tmp_path / f"{name}.log",
        )
        started.append(worker)
        if ready:
            until(lambda: "ready." in worker.log or worker.process.poll() is not None, "the worker is ready")
            assert worker.process.poll() is None, worker.log
        return worker

    yield start
    for worker in started:
        worker.kill()
