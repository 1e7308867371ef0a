"""Waiters of this process, threads and tasks alike: each has a token, and whoever learns that its turn has come rings."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
import uuid
from collections.abc import Callable
from typing import Protocol

_process = uuid.uuid4().hex[:16]
_numbers = itertools.count(1)


def process_name() -> str:
    """Of this process, among all that share a store; another one after a fork."""
    return _process


def new_token() -> str:
    return f"{_process}:{next(_numbers)}"


def started(run: Callable[[], None], name: str) -> threading.Thread | None:
    """A daemon; None where no thread can begin any more: the interpreter ends, or the system's limit is reached."""
    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread


class Waker(Protocol):
    def ring(self) -> None: ...


class ThreadWaker:
    """A thread that waits."""

    def __init__(self) -> None:
        self._rung = threading.Event()

    def ring(self) -> None:
        self._rung.set()

    def wait(self, seconds: float) -> None:
        """Returns when it was rung, at the latest after that time."""
        self._rung.wait(seconds)
        self._rung.clear()


class TaskWaker:
    """A task that waits on the running loop."""

    def __init__(self) -> None:
        self._loop, self._rung = asyncio.get_running_loop(), asyncio.Event()

    def ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the waiter with it
            self._loop.call_soon_threadsafe(self._rung.set)

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        self._rung.clear()


class Waiters:
    """Those that one listener rings. Safe in all threads."""

    def __init__(self) -> None:
        self._wakers: dict[str, Waker] = {}

    def __len__(self) -> int:
        return len(self._wakers)

    def enter(self, token: str, waker: Waker) -> None:
        self._wakers[token] = waker

    def leave(self, token: str) -> None:
        self._wakers.pop(token, None)

    def ring(self, token: str) -> bool:
        """False: nobody waits under this token."""
        waker = self._wakers.get(token)
        if waker is not None:
            waker.ring()
        return waker is not None

    def ring_all(self) -> None:
        """Something may have been missed: let each look for itself."""
        for waker in list(self._wakers.values()):
            waker.ring()

    def clear(self) -> None:
        self._wakers.clear()


def _forked() -> None:
    global _process
    _process = uuid.uuid4().hex[:16]


os.register_at_fork(after_in_child=_forked)
