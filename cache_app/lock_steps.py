"""The steps of taking a lock, done by a thread or on the event loop.

attempt ask     → an answer           enter token   → this caller waits under it, and will be rung
wait seconds    → rung, or in time    leave token   → nothing of it is left, whatever it was granted meanwhile
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import structlog

from .lock_rules import Answer, Ask
from .lock_waits import TaskWaker, ThreadWaker, Waiters

log = structlog.get_logger(__name__)
_leaving: set[asyncio.Task[None]] = set()


class Turns(Protocol):
    """Where the holder and the waiters of one name are kept: Redis, this process, or a file."""

    outage: tuple[type[Exception], ...]  # what passes by itself: a waiter goes on trying

    @property
    def waiters(self) -> Waiters: ...
    def listen(self) -> None:
        """From now on, or soon, `waiters` are rung when their turn comes. Returns at once."""

    def attempt(self, ask: Ask) -> Answer: ...
    async def aattempt(self, ask: Ask) -> Answer: ...
    def free(self, token: str) -> bool: ...
    async def afree(self, token: str) -> bool: ...
    def leave(self, token: str) -> None:
        """Also frees what the token may have been granted, or may yet be by an attempt that is under way."""

    async def aleave(self, token: str) -> None: ...
    def extend(self, token: str, lease_s: float) -> bool: ...
    async def aextend(self, token: str, lease_s: float) -> bool: ...
    def owner(self) -> str: ...
    async def aowner(self) -> str: ...


class Direct:
    """The steps done by this thread."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._waker: ThreadWaker

    def perform(self, step: tuple[Any, ...]) -> Any:
        verb, argument = step
        if verb == "attempt":
            return self._turns.attempt(argument)
        if verb == "wait":
            return self._waker.wait(argument)
        if verb == "enter":
            self._waker = ThreadWaker()
            self._turns.waiters.enter(argument, self._waker)
            return self._turns.listen()
        try:
            self._turns.leave(argument)
        except self._turns.outage:  # what it may hold ends with its lease
            log.warning("lock_not_left")


class Awaited:
    """The same steps on the event loop."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._waker: TaskWaker

    async def perform(self, step: tuple[Any, ...]) -> Any:
        verb, argument = step
        if verb == "attempt":
            return await self._turns.aattempt(argument)
        if verb == "wait":
            return await self._waker.wait(argument)
        if verb == "enter":
            self._waker = TaskWaker()
            self._turns.waiters.enter(argument, self._waker)
            return self._turns.listen()
        await asyncio.shield(self.leave(argument))  # a second cancellation must not stop it

    def leave(self, token: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._leave(token))
        _leaving.add(task)
        task.add_done_callback(_leaving.discard)
        return task

    async def _leave(self, token: str) -> None:
        try:
            await self._turns.aleave(token)
        except self._turns.outage:
            log.warning("lock_not_left")
