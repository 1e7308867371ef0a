"""Locks of the processes of one host, for a cache in files, with the same interface.

    LOCATION/locks/00.page … 3f.page   who holds and who waits for which names (file_pages.py); flock for each step,
                                       never for as long as a lock is held
    LOCATION/locks/<process>.turn      a pipe by which that process is woken, and seen to live (file_mailbox.py)

A holder that is killed frees the lock at once, one that is stopped at the end of its lease: flock alone could do only
the first. The monotonic clock is the host's, so its processes agree on when a lease ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from .file_directory import Directory
from .file_mailbox import Mailbox
from .file_pages import Page, step
from .local_locks import wall_us
from .lock_rules import Answer, Ask, Turns
from .lock_waits import Waiters
from .locks import CacheLock, checked

if TYPE_CHECKING:
    from .backend import BrainCache

T = TypeVar("T")

_PAGES = 64
_POLL_S = 0.05  # the first waiter looks so often whether the holder lives; those behind it less often
_LONGEST_POLL_S = 1.0


def file_lock(cache: BrainCache, name: str, **options: Any) -> CacheLock:
    """A lock among the processes of this host that use this cache. options: as `cache_lock`, without alias."""
    return CacheLock(
        name, FileTurns(_room(str(cache.location)), f"{cache.key_prefix}:{checked(name)}"), **options
    )


class Room:
    """All names below one LOCATION."""

    def __init__(
        self,
        location: str,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], int] = wall_us,
    ) -> None:
        self._directory, self._clock, self._wall = Directory(location), clock, wall
        self._folder = os.path.join(self._directory.location, "locks")
        self.mailbox = Mailbox(self._folder)
        self.reset()
        _all_rooms.add(self)

    def reset(self) -> None:
        # One thread: what a cancelled task has begun is done before what it does to leave.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache-file-locks")

    async def run(self, step: Callable[..., T], *arguments: Any) -> T:
        """A step off the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, step, *arguments)

    def attempt(self, name: str, ask: Ask) -> Answer:
        with self._page(name) as page:
            turns = page.names.setdefault(name, Turns())
            if turns.owner and not self.mailbox.is_alive(turns.owner):
                turns.owner = ""
            answer = turns.attempt(ask, self._clock(), self.mailbox.tell, lambda: self._fence(page))
        if answer.fence:
            return answer
        return replace(answer, retry_s=min(answer.retry_s, _POLL_S * (1 + answer.before), _LONGEST_POLL_S))

    def free(self, name: str, token: str) -> bool:
        with self._page(name) as page:
            return page.names.setdefault(name, Turns()).free(token, self._clock(), self.mailbox.tell)

    def leave(self, name: str, token: str) -> None:
        with self._page(name) as page:
            page.names.setdefault(name, Turns()).leave(token, self._clock(), self.mailbox.tell)

    def extend(self, name: str, token: str, lease_s: float) -> bool:
        with self._page(name) as page:
            return page.names.setdefault(name, Turns()).extend(token, lease_s, self._clock())

    def owner(self, name: str) -> str:
        with self._page(name) as page:
            turns = page.names.setdefault(name, Turns())
            is_held = turns.is_held(self._clock()) and self.mailbox.is_alive(turns.owner)
            return turns.owner if is_held else ""

    def _fence(self, page: Page) -> int:
        page.fence = max(page.fence + 1, self._wall())
        return page.fence

    @contextlib.contextmanager
    def _page(self, name: str) -> Iterator[Page]:
        """The page of this name, for one step. Raises OSError."""
        if not self.mailbox.is_open:
            self._make()
            self.mailbox.open()
        path = os.path.join(self._folder, f"{int(name[:2], 16) % _PAGES:02x}.page")
        with contextlib.ExitStack() as stack:
            try:
                page = stack.enter_context(step(path, self._clock))
            except FileNotFoundError:  # somebody has removed the folder
                self._make()
                self.mailbox.open(again=True)
                page = stack.enter_context(step(path, self._clock))
            yield page

    def _make(self) -> None:
        self._directory.make()
        os.makedirs(self._folder, mode=0o700, exist_ok=True)


class FileTurns:
    """One name of a room."""

    outage: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, room: Room, name: str) -> None:
        self._room, self._name = room, hashlib.blake2b(name.encode(), digest_size=16).hexdigest()

    @property
    def waiters(self) -> Waiters:
        return self._room.mailbox.waiters

    def listen(self) -> None:
        self._room.mailbox.listen()

    def attempt(self, ask: Ask) -> Answer:
        return self._room.attempt(self._name, ask)

    async def aattempt(self, ask: Ask) -> Answer:
        return await self._room.run(self.attempt, ask)

    def free(self, token: str) -> bool:
        return self._room.free(self._name, token)

    async def afree(self, token: str) -> bool:
        return await self._room.run(self.free, token)

    def leave(self, token: str) -> None:
        self._room.leave(self._name, token)

    async def aleave(self, token: str) -> None:
        await self._room.run(self.leave, token)

    def extend(self, token: str, lease_s: float) -> bool:
        return self._room.extend(self._name, token, lease_s)

    async def aextend(self, token: str, lease_s: float) -> bool:
        return await self._room.run(self.extend, token, lease_s)

    def owner(self) -> str:
        return self._room.owner(self._name)

    async def aowner(self) -> str:
        return await self._room.run(self.owner)


_rooms: dict[str, Room] = {}
_all_rooms: weakref.WeakSet[Room] = weakref.WeakSet()


def _room(location: str) -> Room:
    path = os.path.realpath(location)
    return _rooms.get(path) or _rooms.setdefault(path, Room(path))


def _forked() -> None:
    for room in list(_all_rooms):
        room.reset()


os.register_at_fork(after_in_child=_forked)
