"""A cache in a directory of this machine: it outlives restarts, is shared by processes, and keeps to a number of bytes.

Small values stand in a SQLite index, big ones in files that the index names. The directory must be on a local disk: on
NFS neither SQLite's locks nor the memory that its readers share work.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeVar

import structlog
from django.core.exceptions import ImproperlyConfigured

from . import file_numbers, file_values, seldom, stats
from .backend import BrainCache
from .entries import wall_s
from .file_change import Change, Interrupted, Limits
from .file_connections import cannot_open, is_unusable
from .file_directory import Directory
from .file_index import Index, Usage
from .file_locks import file_lock
from .file_numbers import is_integer
from .file_rows import IN_ROW_BYTES, Entry, checksum_of, digest, encoded, size_of
from .file_threads import in_thread
from .globs import compile_glob, literal_prefix
from .options import Options
from .store import NEW, Payload, StoreFailed

log = structlog.get_logger(__name__)

_PUT, _PUT_BYTES = 500, 4 * 2**20  # entries, and bytes, that are put in one transaction
_ATTEMPTS = 3
T = TypeVar("T")
Item = tuple[str, Payload, float | None]


class FileStore:
    """Safe in threads, in any number of processes, and over forks.

    location: a directory of its own; it is made 0700, and one that others can reach is refused (ImproperlyConfigured).
    max_bytes: of keys and values, and 112 bytes for each entry. count: called with "evictions", "expired", "corrupt".
    """

    def __init__(
        self,
        location: str,
        *,
        max_bytes: int = 64 * 2**20,
        max_entries: int = 100_000,
        count: Callable[[str, int], None] = lambda event, n: None,
        wall: Callable[[], float] = wall_s,
    ) -> None:
        if not location:
            raise ImproperlyConfigured("A file cache has no LOCATION. Hint: name a directory of its own.")
        self._directory = Directory(location)
        self._directory.check()
        self._limits = Limits(max_bytes, max_entries)
        self._wall, self._count = wall, count
        self._index = Index(self._directory, self._limits, wall=wall, count=count)

    # --- reading -----------------------------------------------------------------------------------------------------
    def get(self, key: str) -> bytes | None:
        return self._kept(self._get, encoded(key))

    def get_many(self, keys: Sequence[str]) -> list[Payload | None]:
        return self._kept(self._get_many, [encoded(key) for key in keys])

    def ttl_s(self, key: str) -> float | None:
        entry = self._kept(self._index.find, encoded(key))
        if entry is None:
            return None
        return math.inf if entry.expires_at is None else max(entry.expires_at - self._wall(), 0.0)

    def scan(self, pattern: str) -> Iterator[str]:
        start: bytes | None = b""
        while start is not None:
            found, start = self._kept(self._scanned, pattern, start)
            yield from found

    def usage(self) -> Usage:
        """Entries, and bytes as they count towards the limit; what is over and not swept yet is among them."""
        return self._kept(self._index.usage)

    # --- writing -----------------------------------------------------------------------------------------------------
    def set(self, key: str, payload: Payload, ttl_s: float | None, *, only: str = "") -> bool:
        """False for what is greater than the limit, too: it is not kept, and neither is what it should replace."""
        return self._kept(self._set, key, payload, ttl_s, only)

    def set_many(self, items: Sequence[Item]) -> None:
        """One transaction for each 500 of them, or 4 MiB."""
        for some in _portions(items):
            self._kept(self._put, some)

    def delete_many(self, keys: Sequence[str]) -> int:
        names = [encoded(key) for key in keys]
        removed: int = self._kept(self._index.change, lambda change: _deleted(change, names))
        return removed

    def incr(self, key: str, delta: int) -> int | None:
        name = encoded(key)
        number: int | None = self._kept(
            self._index.change, lambda change: file_numbers.add(change, name, delta)
        )
        return number

    def expire(self, key: str, ttl_s: float | None) -> bool:
        return self._kept(self._expire, encoded(key), ttl_s)

    def versions(self, keys: Sequence[str]) -> list[int]:
        names = [encoded(key) for key in keys]
        found = self._kept(self._get_many, names)
        numbers = [int(payload) for payload in found if is_integer(payload)]
        if len(numbers) == len(names):
            return numbers
        return self._kept(
            self._index.change, lambda change: [file_numbers.version(change, name) for name in names]
        )

    def raise_versions(self, keys: Sequence[str]) -> None:
        names = [encoded(key) for key in keys]
        self._kept(self._index.change, lambda change: [file_numbers.raised(change, name) for name in names])

    def delete_matching(self, pattern: str) -> int:
        removed = 0
        start: bytes | None = b""
        while start is not None:
            found, start = self._kept(self._scanned, pattern, start)
            if found:
                removed += self.delete_many(found)
        return removed

    def close(self) -> None:
        """Of no consequence for others; the store can be used again."""
        self._kept(self._index.close)

    # --- for async code: the same in threads of our own, so that the loop never waits for a disk -------------------------
    async def aget(self, key: str) -> Payload | None:
        return await in_thread(self.get, key)

    async def aget_many(self, keys: Sequence[str]) -> list[Payload | None]:
        return await in_thread(self.get_many, keys)

    async def aset(self, key: str, payload: Payload, ttl_s: float | None, *, only: str = "") -> bool:
        """Cancelled, it is done in full or not at all."""
        return await in_thread(lambda: self.set(key, payload, ttl_s, only=only))

    async def aset_many(self, items: Sequence[Item]) -> None:
        await in_thread(self.set_many, items)

    async def adelete_many(self, keys: Sequence[str]) -> int:
        return await in_thread(self.delete_many, keys)

    async def aincr(self, key: str, delta: int) -> int | None:
        return await in_thread(self.incr, key, delta)

    async def aexpire(self, key: str, ttl_s: float | None) -> bool:
        return await in_thread(self.expire, key, ttl_s)

    async def attl_s(self, key: str) -> float | None:
        return await in_thread(self.ttl_s, key)

    async def aversions(self, keys: Sequence[str]) -> list[int]:
        return await in_thread(self.versions, keys)

    async def araise_versions(self, keys: Sequence[str]) -> None:
        await in_thread(self.raise_versions, keys)

    async def ascan(self, pattern: str) -> AsyncIterator[str]:
        start: bytes | None = b""
        while start is not None:
            found, start = await in_thread(self._kept, self._scanned, pattern, start)
            for key in found:
                yield key

    async def adelete_matching(self, pattern: str) -> int:
        return await in_thread(self.delete_matching, pattern)

    # --- parts -------------------------------------------------------------------------------------------------------
    def _kept(self, work: Callable[..., T], *arguments: Any) -> T:
        """work's result. A corrupt index is made anew, once; other errors of disk and database become StoreFailed."""
        try:
            try:
                return work(*arguments)
            except sqlite3.Error as error:
                if not is_unusable(error) and not cannot_open(error):
                    raise
            self._index.recover()
            return work(*arguments)
        except (sqlite3.Error, OSError) as error:
            raise StoreFailed(f"the file cache failed: {error}") from error

    def _get(self, key: bytes) -> bytes | None:
        for _ in range(_ATTEMPTS):
            entry = self._index.find(key)
            if entry is None:
                return None
            payload = self._payload(entry)
            if payload is not None:
                return payload
            # A slow reader finds the file gone of a value that was replaced meanwhile; a lost one is lost still.
            again = self._index.find(key)
            if again is not None and (again.file, again.checksum) == (entry.file, entry.checksum):
                self._lost(entry)
                return None
        return None

    def _get_many(self, keys: Sequence[bytes]) -> list[Payload | None]:
        found: list[Payload | None] = []
        for key, entry in zip(keys, self._index.find_many(keys), strict=True):
            payload = None if entry is None else self._payload(entry)
            found.append(payload if payload is not None or entry is None else self._get(key))
        return found

    def _payload(self, entry: Entry) -> bytes | None:
        if entry.file is None:
            return entry.payload if entry.is_whole() else None
        return file_values.read(self._directory.path(entry.file), entry.key)

    def _lost(self, entry: Entry) -> None:
        self._count("corrupt", 1)
        seldom.warn(log, "cache_file_unreadable", location=self._directory.location, file=entry.file or "")
        self._index.change(lambda change: change.delete_lost(entry))

    def _scanned(self, pattern: str, start: bytes) -> tuple[list[str], bytes | None]:
        """The next keys that match, and where to go on."""
        keys = self._index.keys_from(start, encoded(literal_prefix(pattern)))
        matches = compile_glob(pattern)
        names = [key.decode("utf-8", "surrogatepass") for key in keys]
        return [name for name in names if matches(name)], keys[-1] + b"\0" if keys else None

    def _set(self, key: str, payload: Payload, ttl_s: float | None, only: str) -> bool:
        name = encoded(key)
        if only and len(_bytes(payload)) > IN_ROW_BYTES and not _allows(only, self._index.find(name)):
            return False  # before a file is written in vain
        return self._put([(key, payload, ttl_s)], only)

    def _put(self, items: Sequence[Item], only: str = "") -> bool:
        for _ in range(_ATTEMPTS):
            try:
                return self._put_once(items, only)
            except Interrupted:
                continue
        raise StoreFailed("the file cache's files vanish while they are written")

    def _put_once(self, items: Sequence[Item], only: str) -> bool:
        """Files first, then the rows that name them, in one transaction: the moment at which all of it counts."""
        entries = [self._entry(encoded(key), _bytes(payload), ttl_s) for key, payload, ttl_s in items]
        files = {
            entry.file: (entry, _bytes(item[1]))
            for entry, item in zip(entries, items, strict=True)
            if entry.file is not None
        }
        try:
            if files:
                self._index.change(lambda change: change.announce(files))
                for file, (entry, payload) in files.items():
                    self._write_file(file, entry, payload)
            return self._index.change(lambda change: self._put_all(change, entries, only))
        except BaseException:
            self._index.withdraw(files)
            raise

    def _entry(self, key: bytes, payload: bytes, ttl_s: float | None) -> Entry:
        now, id = self._wall(), digest(key)
        is_big = len(payload) > IN_ROW_BYTES
        size = size_of(key, len(payload))
        file = self._directory.new_file(id) if is_big and size <= self._limits.size_bytes else None
        expires_at = None if ttl_s is None else now + ttl_s
        return Entry(
            id, key, expires_at, now, size, checksum_of(key, payload), file, None if is_big else payload
        )

    def _write_file(self, file: str, entry: Entry, payload: bytes) -> None:
        head = file_values.Head(entry.key, len(payload), entry.checksum, entry.used_at, entry.expires_at)
        file_values.write(self._directory.path(file), payload, head)

    def _put_all(self, change: Change, entries: Sequence[Entry], only: str) -> bool:
        done = True
        for entry in entries:
            is_kept = not only or _allows(only, change.find(entry.key))
            if is_kept and entry.size <= self._limits.size_bytes:
                change.put(entry)
                continue
            done = False
            if is_kept:
                change.delete([entry.id])
            elif entry.file is not None:
                change.discard([entry.file])
        return done

    def _expire(self, key: bytes, ttl_s: float | None) -> bool:
        if ttl_s is not None and ttl_s <= 0:
            return self._index.change(lambda change: _deleted(change, [key])) > 0
        expires_at = None if ttl_s is None else self._wall() + ttl_s
        entry = self._index.change(lambda change: _ending(change, key, expires_at))
        if entry is not None and entry.file is not None:
            file_values.change_end(self._directory.path(entry.file), expires_at)
        return entry is not None


class FileCache(BrainCache):
    """CACHES backend. LOCATION: a directory of its own, on a local disk."""

    is_remote = True

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        self._bind(location, params)

    def _make_store(self, alias: str, options: Options) -> FileStore:
        return FileStore(
            str(self.location or ""),
            max_bytes=options.MAX_BYTES,
            max_entries=options.MAX_ENTRIES,
            count=stats.counts(alias).add,
        )

    def lock(self, name: str, **options: Any) -> Any:
        return file_lock(self, name, **options)


def _bytes(payload: Payload) -> bytes:
    if type(payload) is bytes:
        return payload
    raise TypeError("a file cache keeps bytes")


def _allows(only: str, found: Entry | None) -> bool:
    return found is None if only == NEW else found is not None


def _deleted(change: Change, keys: Sequence[bytes]) -> int:
    found = [entry.id for key in dict.fromkeys(keys) if (entry := change.find(key)) is not None]
    change.delete(found)
    return len(found)


def _ending(change: Change, key: bytes, expires_at: float | None) -> Entry | None:
    entry = change.find(key)
    if entry is not None:
        change.end_at(entry, expires_at)
    return entry


def _portions(items: Sequence[Item]) -> Iterator[list[Item]]:
    some: list[Item] = []
    size_bytes = 0
    for item in items:
        some.append(item)
        size_bytes += len(_bytes(item[1]))
        if len(some) >= _PUT or size_bytes >= _PUT_BYTES:
            yield some
            some, size_bytes = [], 0
    if some:
        yield some
