"""A cache in this process's memory, bounded in entries and bytes: Django's backend, and the first tier of tiered.py.

Reading takes no lock: an entry is looked up, and that it was read is noted for the policy, which hears of it with the
next write. Whatever changes the store takes its lock.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from sys import getsizeof
from typing import Any, TypeVar

from . import stats
from .backend import BrainCache
from .codec import Meta
from .entries import wall_s
from .eviction import Entry, Policy
from .expiry import Ends
from .globs import compile_glob
from .local_locks import local_lock
from .lru import Lru
from .options import Options
from .sizes import estimate_bytes as estimate_bytes
from .store import EXISTING, NEW, Held, Payload
from .tinylfu import TinyLfu

ENTRY_BYTES = (
    350  # of an entry beside its key and payload: objects, their places in tables, sketches (CPython 3.11)
)
_NOTED = 512  # reads between two writes that the policy hears of: the last ones
_SWEPT = 16  # expired entries that a write removes at most; it brings one
_CHUNK = 1_000  # keys that are deleted, or items that are written, under one hold of the lock
_POLICIES: dict[str, Callable[[int, int], Policy]] = {"tinylfu": TinyLfu, "lru": Lru}
_T = TypeVar("_T")
_stores: weakref.WeakSet[MemoryStore] = weakref.WeakSet()


class MemoryStore:
    """Safe in threads and after a fork, where the child goes on with what was there.

    An entry larger than max_bytes is not kept, and what stood in its place is gone.
    clock: seconds, monotonic; wall: seconds since the epoch, for versions. count: called with "evictions", "expired".
    """

    def __init__(
        self,
        max_bytes: int = 64 * 2**20,
        max_entries: int = 100_000,
        policy: str = "tinylfu",
        *,
        count: Callable[[str, int], None] = lambda event, n: None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = wall_s,
    ) -> None:
        self._max_bytes, self._count = max_bytes, count
        self._clock, self._wall = clock, wall
        self._make_policy = lambda: _POLICIES[policy](max_entries, max_bytes)
        # Reentrant: a value that is dropped here may come back from its __del__.
        self._lock = threading.RLock()
        self._last_version = 0
        self._empty()
        _stores.add(self)

    def _empty(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._policy = self._make_policy()
        self._ends = Ends()
        # Longer ones push the oldest out: it costs no lock and no test, and above this nearly every read is a hit.
        self._reads: deque[Entry] = deque(maxlen=_NOTED)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """Of keys, values and what stands around them."""
        return self._policy.size_bytes

    # --- reading -----------------------------------------------------------------------------------------------------
    def get(self, key: str) -> Payload | None:
        entry = self._entries.get(key)
        if entry is None or entry.expires_at <= self._clock():
            return None  # a write will remove it
        self._reads.append(entry)
        return entry.payload

    def peek(self, key: str) -> Payload | None:
        """Without counting as a use."""
        entry = self._entries.get(key)
        return None if entry is None or entry.expires_at <= self._clock() else entry.payload

    def get_many(self, keys: Sequence[str]) -> list[Payload | None]:
        return [self.get(key) for key in keys]

    def ttl_s(self, key: str) -> float | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        left_s = entry.expires_at - self._clock()
        return left_s if left_s > 0 else None

    def scan(self, pattern: str) -> Iterator[str]:
        matches = compile_glob(pattern)
        for key in list(self._entries):
            entry = self._entries.get(key)
            if entry is not None and entry.expires_at > self._clock() and matches(key):
                yield key

    # --- writing -----------------------------------------------------------------------------------------------------
    def set(self, key: str, payload: Payload, ttl_s: float | None, *, only: str = "") -> bool:
        """False as well when it is too large to be kept."""
        with self._lock:
            self._catch_up()
            found = self._living(key)
            if (only == NEW and found is not None) or (only == EXISTING and found is None):
                return False
            return self._put(key, payload, ttl_s)

    def set_many(self, items: Sequence[tuple[str, Payload, float | None]]) -> None:
        for chunk in _chunks(items):
            with self._lock:
                for key, payload, ttl_s in chunk:
                    self._catch_up()
                    self._put(key, payload, ttl_s)

    def delete_many(self, keys: Sequence[str]) -> int:
        deleted = 0
        for chunk in _chunks(keys):
            with self._lock:
                self._catch_up()
                deleted += sum(self._delete(key) for key in chunk)
        return deleted

    def delete_matching(self, pattern: str) -> int:
        return self.delete_many(list(self.scan(pattern)))

    def pop(self, key: str) -> Payload | None:
        with self._lock:
            found = self.peek(key)
            self._delete(key)
            return found

    def clear(self) -> None:
        with self._lock:
            dropped = self._entries  # until the store is whole again
            self._empty()
        dropped.clear()

    def incr(self, key: str, delta: int) -> int | None:
        with self._lock:
            self._catch_up()
            entry = self._living(key)
            if entry is None:
                return None
            value = _integer(entry.payload) + delta
            self._replace(entry, b"%d" % value)
            return value

    def expire(self, key: str, ttl_s: float | None) -> bool:
        with self._lock:
            self._catch_up()
            entry = self._living(key)
            if entry is None:
                return False
            if ttl_s is not None and ttl_s <= 0:
                self._leave(entry)
            else:
                self._end_at(entry, self._end(ttl_s))
            return True

    def versions(self, keys: Sequence[str]) -> list[int]:
        with self._lock:
            self._catch_up()
            return [self._version(key) for key in keys]

    def raise_versions(self, keys: Sequence[str]) -> None:
        with self._lock:
            self._catch_up()
            for key in keys:
                self._put(key, b"%d" % self._next_version(self._number(key)), None)

    # --- for the event loop: nothing waits ---------------------------------------------------------------------------
    async def aget(self, key: str) -> Payload | None:
        return self.get(key)

    async def aget_many(self, keys: Sequence[str]) -> list[Payload | None]:
        return self.get_many(keys)

    async def aset(self, key: str, payload: Payload, ttl_s: float | None, *, only: str = "") -> bool:
        return self.set(key, payload, ttl_s, only=only)

    async def aset_many(self, items: Sequence[tuple[str, Payload, float | None]]) -> None:
        self.set_many(items)

    async def adelete_many(self, keys: Sequence[str]) -> int:
        return self.delete_many(keys)

    async def aincr(self, key: str, delta: int) -> int | None:
        return self.incr(key, delta)

    async def aexpire(self, key: str, ttl_s: float | None) -> bool:
        return self.expire(key, ttl_s)

    async def attl_s(self, key: str) -> float | None:
        return self.ttl_s(key)

    async def aversions(self, keys: Sequence[str]) -> list[int]:
        return self.versions(keys)

    async def araise_versions(self, keys: Sequence[str]) -> None:
        self.raise_versions(keys)

    async def ascan(self, pattern: str) -> AsyncIterator[str]:
        for key in self.scan(pattern):
            yield key

    async def adelete_matching(self, pattern: str) -> int:
        return self.delete_matching(pattern)

    # --- parts; the lock is held -------------------------------------------------------------------------------------
    def _catch_up(self) -> None:
        """What the policy and the clock have to say before something changes."""
        reads = self._reads
        if reads:
            heard = reads.copy()
            reads.clear()  # with a read that came in between: it is forgotten, which is all that it costs
            self._policy.read(heard)
        now = self._clock()
        for _ in range(_SWEPT):
            key = self._ends.over(now)
            if key is None:
                return
            self._leave(self._entries[key])
            self._count("expired", 1)

    def _living(self, key: str) -> Entry | None:
        entry = self._entries.get(key)
        if entry is not None and entry.expires_at <= self._clock():
            self._leave(entry)
            self._count("expired", 1)
            return None
        return entry

    def _put(self, key: str, payload: Payload, ttl_s: float | None) -> bool:
        entry = self._living(key)
        if ttl_s is not None and ttl_s <= 0:
            if entry is not None:
                self._leave(entry)
            return True
        if entry is not None:
            # In its place: between an old one that is gone and a new one to come, readers would find nothing.
            self._end_at(entry, self._end(ttl_s))
            return self._replace(entry, payload)
        entry = Entry(key, payload, self._end(ttl_s), _size_of(key, payload))
        if entry.size_bytes > self._max_bytes:
            self._count("evictions", 1)
            return False
        self._entries[key] = entry
        self._ends.note(key, entry.expires_at)
        self._evict(self._policy.insert(entry))
        return True

    def _replace(self, entry: Entry, payload: Payload) -> bool:
        size_bytes = _size_of(entry.key, payload)
        if size_bytes > self._max_bytes:
            self._leave(entry)
            self._count("evictions", 1)
            return False
        before, entry.payload = entry.payload, payload
        self._evict(self._policy.resize(entry, size_bytes))
        del before  # not sooner: its __del__ may come back here
        return True

    def _delete(self, key: str) -> bool:
        entry = self._living(key)
        if entry is None:
            return False
        self._leave(entry)
        return True

    def _leave(self, entry: Entry) -> None:
        self._policy.remove(entry)
        self._forget(entry)

    def _evict(self, gone: Sequence[Entry]) -> None:
        for entry in gone:
            self._forget(entry)
        if gone:
            self._count("evictions", len(gone))

    def _forget(self, entry: Entry) -> None:
        del self._entries[entry.key]
        self._ends.drop(entry.key, entry.expires_at)
        entry.payload = None

    def _end(self, ttl_s: float | None) -> float:
        return math.inf if ttl_s is None else self._clock() + ttl_s

    def _end_at(self, entry: Entry, end: float) -> None:
        self._ends.drop(entry.key, entry.expires_at)
        entry.expires_at = end
        self._ends.note(entry.key, end)

    # --- versions ----------------------------------------------------------------------------------------------------
    def _version(self, key: str) -> int:
        """Asking for it is a use: the number of a tag that is read with every entry stays."""
        found = self._number(key)
        if found is not None:
            self._reads.append(self._entries[key])
            return found
        made = self._next_version(None)
        self._put(key, b"%d" % made, None)
        return made

    def _number(self, key: str) -> int | None:
        entry = self._living(key)
        return None if entry is None else _integer(entry.payload)

    def _next_version(self, before: int | None) -> int:
        """Above every number that this store has given: one that was evicted does not come back when the clock steps."""
        self._last_version = max(int(self._wall() * 1e6), self._last_version + 1, (before or 0) + 1)
        return self._last_version


class MemoryCache(BrainCache):
    """CACHES backend of this process alone. OPTIONS: MAX_BYTES, MAX_ENTRIES, POLICY, and COPY.

    COPY = False keeps and hands out the objects themselves: faster, and whoever changes one changes it for all.
    """

    tier = "l1"

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        self._bind(location, params)

    def _make_store(self, alias: str, options: Options) -> MemoryStore:
        return store_of(alias, options)

    def _pack(self, full: str, value: Any, meta: Meta | None) -> Payload:
        if self.options.COPY or (meta is None and type(value) is int):
            return super()._pack(full, value, meta)
        return Held(value, meta, estimate_bytes(value))

    def lock(self, name: str, **options: Any) -> Any:
        return local_lock(self, name, **options)


def store_of(alias: str, options: Options) -> MemoryStore:
    return MemoryStore(options.MAX_BYTES, options.MAX_ENTRIES, options.POLICY, count=stats.counts(alias).add)


def _size_of(key: str, payload: Payload) -> int:
    held = payload.size_bytes if type(payload) is Held else getsizeof(payload)
    return ENTRY_BYTES + getsizeof(key) + held


def _integer(payload: Payload | None) -> int:
    """Raises ValueError for what Redis would not count either: int() takes spaces and underscores."""
    if type(payload) is bytes and (payload.isdigit() or (payload[:1] == b"-" and payload[1:].isdigit())):
        return int(payload)
    raise ValueError("value is not an integer")


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))


def _after_fork() -> None:
    for store in list(_stores):
        # A lock that is taken was taken by a thread that is not here, and what it changed is half done.
        was_changing = not store._lock.acquire(blocking=False)
        store._lock = threading.RLock()
        if was_changing:
            store._empty()


os.register_at_fork(after_in_child=_after_fork)
