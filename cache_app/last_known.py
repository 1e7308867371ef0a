"""What this process read or wrote last, for ON_DOWN = "stale": an answer while the store gives none."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from .globs import compile_glob

_all: weakref.WeakSet[LastKnown] = weakref.WeakSet()
_ENTRY_BYTES = 200  # of the dict, the tuple and the key's object, about


class LastKnown:
    """Encoded entries by full key, the ones not asked for longest going first. For threads."""

    def __init__(self, max_bytes: int, max_age_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes, self._max_age_s, self._clock = max_bytes, max_age_s, clock
        self.reset()
        _all.add(self)

    def reset(self) -> None:
        """Empty. In a forked child: the thread that held the lock, in the middle of a change, is not in it."""
        self._entries: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def keep(self, key: str, payload: bytes) -> None:
        size = _size(key, payload)
        if size > self._max_bytes:
            self.forget([key])
            return
        with self._lock:
            self._pop(key)
            self._entries[key] = (payload, self._clock())
            self._bytes += size
            while self._bytes > self._max_bytes:
                self._pop(next(iter(self._entries)))

    def saw(self, keys: Sequence[str], payloads: Iterable[bytes | None]) -> None:
        """What the store answered; None: it has no such key."""
        for key, payload in zip(keys, payloads, strict=True):
            if payload is None:
                self.forget([key])
            else:
                self.keep(key, payload)

    def forget(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._pop(key)

    def forget_matching(self, pattern: str) -> None:
        matches = compile_glob(pattern)
        with self._lock:
            for key in [known for known in self._entries if matches(known)]:
                self._pop(key)

    def get(self, key: str) -> bytes | None:
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return None
            if self._clock() - found[1] > self._max_age_s:
                self._pop(key)
                return None
            self._entries.move_to_end(key)
            return found[0]

    def _pop(self, key: str) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self._bytes -= _size(key, found[0])


def _size(key: str, payload: bytes) -> int:
    return len(key) + len(payload) + _ENTRY_BYTES


def _forked() -> None:
    for known in list(_all):
        known.reset()


os.register_at_fork(after_in_child=_forked)
