"""Locks of one process, for a cache in its memory: threads and the tasks of all its loops, with the same interface."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .lock_rules import Answer, Ask, Turns
from .lock_waits import Waiters
from .locks import CacheLock, checked

if TYPE_CHECKING:
    from .backend import BrainCache


_SWEEP_FROM = 1000  # names


def local_lock(cache: BrainCache, name: str, **options: Any) -> CacheLock:
    """A lock of this process. options: as `cache_lock`, without alias."""
    return CacheLock(
        name, LocalTurns(_room(str(cache.location)), f"{cache.key_prefix}:{checked(name)}"), **options
    )


def wall_us() -> int:
    return time.time_ns() // 1000


class Room:
    """All names of one memory. Nothing is kept for a name that nobody holds or waits for."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], int] = wall_us
    ) -> None:
        self._clock, self._wall = clock, wall
        self._last_fence = 0
        self.reset()

    def reset(self) -> None:
        """In a forked child: who holds and waits is in the parent."""
        self.waiters = Waiters()
        self._guard = threading.Lock()
        self._turns: dict[str, Turns] = {}
        self._sweeps_at = _SWEEP_FROM

    def attempt(self, name: str, ask: Ask) -> Answer:
        with self._guard:
            if len(self._turns) >= self._sweeps_at:
                self._sweep()
            turns = self._turns.setdefault(name, Turns())
            return turns.attempt(ask, self._clock(), self.waiters.ring, self._fence)

    def free(self, name: str, token: str) -> bool:
        with self._guard:
            turns = self._turns.get(name, Turns())
            is_ours = turns.free(token, self._clock(), self.waiters.ring)
            self._tidy(name, turns)
            return is_ours

    def leave(self, name: str, token: str) -> None:
        with self._guard:
            turns = self._turns.get(name, Turns())
            turns.leave(token, self._clock(), self.waiters.ring)
            self._tidy(name, turns)

    def extend(self, name: str, token: str, lease_s: float) -> bool:
        with self._guard:
            return self._turns.get(name, Turns()).extend(token, lease_s, self._clock())

    def owner(self, name: str) -> str:
        with self._guard:
            turns = self._turns.get(name, Turns())
            return turns.owner if turns.is_held(self._clock()) else ""

    def _fence(self) -> int:
        self._last_fence = max(self._last_fence + 1, self._wall())
        return self._last_fence

    def _sweep(self) -> None:
        """Forget what was never freed: its holder is gone, and nobody has asked for it since."""
        now = self._clock()
        self._turns = {
            name: turns for name, turns in self._turns.items() if turns.queue or turns.is_held(now)
        }
        self._sweeps_at = 2 * len(self._turns) + _SWEEP_FROM

    def _tidy(self, name: str, turns: Turns) -> None:
        if turns.is_idle:
            self._turns.pop(name, None)


class LocalTurns:
    """One name of a room. Nothing here waits, so the loop's half is the threads' half."""

    outage: tuple[type[Exception], ...] = ()

    def __init__(self, room: Room, name: str) -> None:
        self._room, self._name = room, name

    @property
    def waiters(self) -> Waiters:
        return self._room.waiters

    def listen(self) -> None:
        """Whoever frees rings here."""

    def attempt(self, ask: Ask) -> Answer:
        return self._room.attempt(self._name, ask)

    async def aattempt(self, ask: Ask) -> Answer:
        return self._room.attempt(self._name, ask)

    def free(self, token: str) -> bool:
        return self._room.free(self._name, token)

    async def afree(self, token: str) -> bool:
        return self._room.free(self._name, token)

    def leave(self, token: str) -> None:
        self._room.leave(self._name, token)

    async def aleave(self, token: str) -> None:
        self._room.leave(self._name, token)

    def extend(self, token: str, lease_s: float) -> bool:
        return self._room.extend(self._name, token, lease_s)

    async def aextend(self, token: str, lease_s: float) -> bool:
        return self._room.extend(self._name, token, lease_s)

    def owner(self) -> str:
        return self._room.owner(self._name)

    async def aowner(self) -> str:
        return self._room.owner(self._name)


_rooms: dict[str, Room] = {}


def _room(location: str) -> Room:
    return _rooms.get(location) or _rooms.setdefault(location, Room())


def _forked() -> None:
    for room in _rooms.values():
        room.reset()


os.register_at_fork(after_in_child=_forked)
