"""The three kinds of lock that keep one contract, and the two doors through which the same question is put."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from cache_app import cache_lock, file_locks, redis_locks
from cache_app.file_locks import file_lock
from cache_app.local_locks import LocalTurns, local_lock
from cache_app.locks import CacheLock
from cache_app.redis_locks import RedisTurns

KINDS = ("redis", "local", "file")
WAIT_S = 20.0  # for what must happen; shorter than a lease, at whose end a waiter looks without being told


def stop_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is not told waits until the test fails."""
    monkeypatch.setattr(redis_locks, "_POLL_S", 600.0)
    monkeypatch.setattr(redis_locks, "_DEAF_POLL_S", 600.0)
    monkeypatch.setattr(file_locks, "_POLL_S", 600.0)
    monkeypatch.setattr(file_locks, "_LONGEST_POLL_S", 600.0)


class Locks:
    """`locks.make(ttl_s=1)`: a lock of this kind on the test's one name."""

    def __init__(self, kind: str, prefix: str, folder: Any) -> None:
        self.kind, self._prefix = kind, prefix
        self._cache: Any = SimpleNamespace(
            location=str(folder) if kind == "file" else prefix, key_prefix=prefix
        )

    def make(self, name: str = "name", **options: Any) -> CacheLock:
        if self.kind == "redis":
            return cache_lock(self._prefix + name, **options)
        return (local_lock if self.kind == "local" else file_lock)(self._cache, name, **options)


class Door:
    """`door.acquire(lock)` calls it, or awaits its twin on one loop that lives as long as the test."""

    def __init__(self, *, is_async: bool) -> None:
        self.runner = asyncio.Runner() if is_async else None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(lock: CacheLock, *arguments: Any) -> Any:
            if self.runner is None:
                return getattr(lock, name)(*arguments)
            return self.runner.run(getattr(lock, f"a{name}")(*arguments))

        return call

    def sleep(self, seconds: float) -> None:
        """The loop goes on meanwhile."""
        if self.runner is None:
            time.sleep(seconds)
        else:
            self.runner.run(asyncio.sleep(seconds))

    def within(self, lock: CacheLock, body: Callable[[], Any]) -> None:
        """The body inside the block."""
        if self.runner is None:
            with lock:
                body()
            return

        async def block() -> None:
            async with lock:
                body()

        self.runner.run(block())

    @contextmanager
    def beside(self, work: Callable[[Door], Any]) -> Iterator[threading.Thread]:
        """In another thread, with a loop of its own where this door has one; joined at the end of the block."""
        raised: list[BaseException] = []

        def run() -> None:
            door = Door(is_async=self.runner is not None)
            try:
                work(door)
            except BaseException as error:
                raised.append(error)
            finally:
                door.close()

        thread = threading.Thread(target=run)
        thread.start()
        yield thread
        thread.join(WAIT_S)
        assert not thread.is_alive()
        if raised:
            raise raised[0]

    def close(self) -> None:
        if self.runner is not None:
            self.runner.close()


def until(holds: Callable[[], Any], wait_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + wait_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.002)


def in_queue(lock: CacheLock) -> int:
    """How many of all processes have their place in the queue of this lock."""
    turns: Any = lock._turns
    if isinstance(turns, RedisTurns):
        return int(turns._server.link.read("ZCARD", f"{turns.stem}:queue"))
    if isinstance(turns, LocalTurns):
        return len(turns._room._turns[turns._name].queue)
    with turns._room._page(turns._name) as page:
        found = page.names.get(turns._name)
        return 0 if found is None else len(found.queue)


def hears(lock: CacheLock) -> bool:
    """Whether those of this process who wait are told."""
    turns: Any = lock._turns
    return not isinstance(turns, RedisTurns) or bool(turns._listener.hears)


def queued(lock: CacheLock) -> int:
    """How many of this process wait where this lock is kept."""
    return len(lock._turns.waiters)
