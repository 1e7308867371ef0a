"""Memory in front of a shared store: what it keeps, for how long, and which reader may put something there. Pure.

A reader of the store takes a token first; whatever changes the key meanwhile makes the token void, so that what the
reader brings from the store is not kept: it may be older than the change. A token is a count of changes in the key's
slot, so nothing has to be given back when a reader fails or is cancelled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from .codec import Meta
from .store import Payload

# A change voids the tokens of all keys in its slot: with 5,000 changes per second, one read of 0.2 ms in 4,000.
SLOTS = 4096
_SLOT = SLOTS - 1


class Memory(Protocol):
    """What is needed of a memory store."""

    def get(self, key: str) -> Payload | None: ...
    def set(self, key: str, payload: Payload, ttl_s: float | None) -> bool: ...
    def delete_many(self, keys: Sequence[str]) -> int: ...


class L1:
    """ceiling_s: for how long anything is kept at most. make_memory: an empty one."""

    def __init__(self, make_memory: Callable[[], Memory], ceiling_s: float) -> None:
        self._make_memory, self.ceiling_s = make_memory, ceiling_s
        self._changes = [0] * SLOTS
        self.renew()

    def token(self, key: str) -> int:
        """To be taken before the store is asked."""
        return self._changes[hash(key) & _SLOT]

    def keep(self, key: str, payload: Payload, life_s: float, token: int) -> None:
        """Unless the key may have changed since the token was taken."""
        with self._lock:
            if self._changes[hash(key) & _SLOT] == token:
                self.memory.set(key, payload, min(life_s, self.ceiling_s))

    def drop(self, keys: Sequence[str]) -> None:
        with self._lock:
            for key in keys:
                self._changes[hash(key) & _SLOT] += 1
            self.memory.delete_many(keys)

    def flush(self) -> None:
        """Readers that are under way keep nothing either."""
        with self._lock:
            self._changes = [count + 1 for count in self._changes]
            self.memory = self._make_memory()

    def renew(self) -> None:
        """In a forked child: the thread that held a lock is not here."""
        self._lock = threading.Lock()
        self.flush()


class Changing:
    """Around a write: who reads in this process when it is over gets nothing older, however the write has ended."""

    __slots__ = ("_keys", "_l1")

    def __init__(self, l1: L1, keys: Sequence[str]) -> None:
        self._l1, self._keys = l1, keys

    def __enter__(self) -> None:
        self._l1.drop(self._keys)

    def __exit__(self, *_: object) -> None:
        self._l1.drop(self._keys)


class Flushing(Changing):
    """Around a write whose keys are not known."""

    __slots__ = ()

    def __init__(self, l1: L1) -> None:
        super().__init__(l1, ())

    def __enter__(self) -> None:
        self._l1.flush()

    def __exit__(self, *_: object) -> None:
        self._l1.flush()


def life_s(meta: Meta, now: float) -> float:
    """For how long memory may keep an entry. now: seconds since the epoch; 0 or less: it may not."""
    left_s = float("inf") if meta.expires_at is None else meta.expires_at - now
    # The store's clock begins anew only when the store is read: often enough that it does not end the entry.
    return left_s if meta.sliding_s is None else min(left_s, meta.sliding_s / 4)
