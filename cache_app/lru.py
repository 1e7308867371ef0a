"""Least recently used: the oldest entries make room. Pure."""

from __future__ import annotations

from collections.abc import Collection

from .eviction import Entry, Segment


class Lru:
    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._entries = Segment()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        return self._entries.size_bytes

    def insert(self, entry: Entry) -> list[Entry]:
        self._entries.push(entry)
        return self._overflow()

    def resize(self, entry: Entry, size_bytes: int) -> list[Entry]:
        self._entries.resize(entry, size_bytes)
        self._entries.order.move_to_end(entry.key)
        return self._overflow()

    def read(self, entries: Collection[Entry]) -> None:
        order = self._entries.order
        for entry in entries:
            if entry.segment is self._entries:  # not removed, nor of a store that was emptied meanwhile
                order.move_to_end(entry.key)

    def remove(self, entry: Entry) -> None:
        self._entries.drop(entry)

    def _overflow(self) -> list[Entry]:
        gone = []
        entries = self._entries
        while len(entries.order) > self._max_entries or entries.size_bytes > self._max_bytes:
            gone.append(entries.pop_oldest())
        return gone
