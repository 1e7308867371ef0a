"""A cache in this process's memory, bounded in entries and bytes: Django's backend, and the first tier of tiered.py.

Reading takes no lock: an entry is looked up, and that it was read is noted for the policy, which hears of it later in
one go. Whatever changes the store takes its lock.
"""

from __future__ import annotations

import heapq
import math
import os
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import count as ticker
from typing import Any

from . import stats
from .backend import BrainCache
from .codec import Meta
from .entries import wall_s
from .eviction import Entry, Policy
from .globs import compile_glob
from .local_locks import local_lock
from .lru import Lru
from .options import Options
from .store import EXISTING, NEW, Held, Payload
from .tinylfu import TinyLfu

ENTRY_BYTES = 250  # of the objects around a key and its value, on CPython 3.11
_NOTED = 128  # reads until the policy hears of them
_SWEPT = 4  # expired entries that a write looks for
_LOOKED_AT = 1_000  # objects of one value whose sizes are added up
_POLICIES: dict[str, Callable[[int, int], Policy]] = {"tinylfu": TinyLfu, "lru": Lru}
_stores: weakref.WeakSet[MemoryStore] = weakref.WeakSet()


class MemoryStore:
    """Safe in threads and after a fork, where the child goes on with what was there.

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
        self._lock = threading.Lock()
        self._empty()
        _stores.add(self)

    def _empty(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._policy = self._make_policy()
        self._reads: list[Entry] = []
        self._ends: list[tuple[float, int, Entry]] = []  # a heap; ends of entries that are gone are skipped
        self._tickets = ticker()

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
            return None  # the next writes sweep it
        reads = self._reads
        reads.append(entry)
        if len(reads) >= _NOTED:
            self._tell_policy()
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
        matches, now = compile_glob(pattern), self._clock()
        with self._lock:
            known = [key for key, entry in self._entries.items() if entry.expires_at > now]
        return (key for key in known if matches(key))

    # --- writing -----------------------------------------------------------------------------------------------------
    def set(self, key: str, payload: Payload, ttl_s: float | None, *, only: str = "") -> bool:
        with self._lock:
            self._sweep()
            found = self._living(key)
            if (only == NEW and found is not None) or (only == EXISTING and found is None):
                return False
            self._put(key, payload, ttl_s)
            return True

    def set_many(self, items: Sequence[tuple[str, Payload, float | None]]) -> None:
        with self._lock:
            self._sweep()
            for key, payload, ttl_s in items:
                self._put(key, payload, ttl_s)

    def delete_many(self, keys: Sequence[str]) -> int:
        with self._lock:
            return sum(self._delete(key) for key in keys)

    def delete_matching(self, pattern: str) -> int:
        return self.delete_many(list(self.scan(pattern)))

    def clear(self) -> None:
        with self._lock:
            self._empty()

    def incr(self, key: str, delta: int) -> int | None:
        with self._lock:
            entry = self._living(key)
            if entry is None:
                return None
            value = _integer(entry.payload) + delta
            self._replace(entry, b"%d" % value)
            return value

    def expire(self, key: str, ttl_s: float | None) -> bool:
        with self._lock:
            entry = self._living(key)
            if entry is None:
                return False
            if ttl_s is not None and ttl_s <= 0:
                self._delete(key)
                return True
            entry.expires_at = self._end(ttl_s)
            self._note_end(entry)
            return True

    def versions(self, keys: Sequence[str]) -> list[int]:
        with self._lock:
            return [self._version(key) for key in keys]

    def raise_versions(self, keys: Sequence[str]) -> None:
        with self._lock:
            for key in keys:
                entry = self._living(key)
                before = -1 if entry is None else _integer(entry.payload)
                self._put(key, b"%d" % max(before + 1, self._now_us()), None)

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
    def _tell_policy(self) -> None:
        if not self._lock.acquire(blocking=False):
            if len(self._reads) > 8 * _NOTED:
                self._reads = []  # a writer is busy: some uses are forgotten rather than kept waiting
            return
        try:
            self._heard()
        finally:
            self._lock.release()

    def _heard(self) -> None:
        reads, self._reads = self._reads, []
        self._policy.read(reads)

    def _living(self, key: str) -> Entry | None:
        entry = self._entries.get(key)
        if entry is not None and entry.expires_at <= self._clock():
            self._leave(entry)
            self._count("expired", 1)
            return None
        return entry

    def _put(self, key: str, payload: Payload, ttl_s: float | None) -> None:
        if self._reads:
            self._heard()
        old = self._entries.pop(key, None)
        if old is not None:
            self._forget(old)
        size_bytes = _size_of(key, payload)
        if size_bytes > self._max_bytes:
            self._count("evictions", 1)
            return
        entry = Entry(key, payload, self._end(ttl_s), size_bytes)
        self._entries[key] = entry
        self._evict(self._policy.insert(entry))
        if entry.payload is not None:
            self._note_end(entry)

    def _replace(self, entry: Entry, payload: bytes) -> None:
        entry.payload = payload
        self._evict(self._policy.resize(entry, _size_of(entry.key, payload)))

    def _delete(self, key: str) -> bool:
        entry = self._entries.get(key)
        if entry is None:
            return False
        self._leave(entry)
        return entry.expires_at > self._clock()

    def _leave(self, entry: Entry) -> None:
        del self._entries[entry.key]
        self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        if entry.segment is not None:
            self._policy.remove(entry)
        entry.payload = None

    def _evict(self, gone: list[Entry]) -> None:
        for entry in gone:
            if self._entries.get(entry.key) is entry:
                del self._entries[entry.key]
            entry.payload = None
        if gone:
            self._count("evictions", len(gone))

    def _version(self, key: str) -> int:
        entry = self._living(key)
        if entry is not None:
            return _integer(entry.payload)
        made = self._now_us()
        self._put(key, b"%d" % made, None)
        return made

    def _now_us(self) -> int:
        return int(self._wall() * 1e6)

    # --- ends --------------------------------------------------------------------------------------------------------
    def _end(self, ttl_s: float | None) -> float:
        return math.inf if ttl_s is None else self._clock() + ttl_s

    def _note_end(self, entry: Entry) -> None:
        if entry.expires_at == math.inf:
            return
        if len(self._ends) > 2 * len(self._entries) + 64:  # most of them are of entries that are gone
            living = [one for one in self._entries.values() if one.expires_at != math.inf]
            self._ends = [(one.expires_at, next(self._tickets), one) for one in living]
            heapq.heapify(self._ends)
            return
        heapq.heappush(self._ends, (entry.expires_at, next(self._tickets), entry))

    def _sweep(self) -> None:
        """What is over, a few at a time: more than one write can bring."""
        now, ends = self._clock(), self._ends
        for _ in range(_SWEPT):
            if not ends or ends[0][0] > now:
                return
            entry = heapq.heappop(ends)[2]
            if entry.payload is not None and entry.expires_at <= now:
                self._leave(entry)
                self._count("expired", 1)


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
    return MemoryStore(
        options.MAX_BYTES, options.MAX_ENTRIES, options.POLICY, count=stats.counts(alias).add
    )


def estimate_bytes(value: Any) -> int:
    """Of a value and what it holds; beyond _LOOKED_AT objects by what the first ones took on average."""
    size, seen, left = 0, set[int](), [value]
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        size += sys.getsizeof(one, 64)
        left += _held_by(one)
        if len(seen) >= _LOOKED_AT:
            return size + len(left) * size // len(seen)
    return size


def _held_by(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    held = getattr(value, "__dict__", None)
    return [held] if isinstance(held, dict) else []


def _size_of(key: str, payload: Payload) -> int:
    return ENTRY_BYTES + len(key) + (len(payload) if type(payload) is bytes else payload.size_bytes)  # type: ignore[union-attr]


def _integer(payload: Payload | None) -> int:
    if type(payload) is bytes:
        return int(payload)
    raise ValueError("value is not an integer")


def _after_fork() -> None:
    for store in list(_stores):
        was_changing = store._lock.locked()
        store._lock = threading.Lock()  # the thread that held it is not here, and what it changed is half done
        if was_changing:
            store._empty()


os.register_at_fork(after_in_child=_after_fork)
