"""What a full memory cache lets go of: an entry, and what the policies (lru.py, tinylfu.py) have in common. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import Protocol

from .store import Payload


class Entry:
    """One key of a memory store. What a policy notes about it stands here too: one object less per entry.

    payload: None once the entry has left the store; a reader that found it just before reads a miss.
    expires_at: of the store's clock, math.inf = never. size_bytes: everything that the entry costs.
    """

    __slots__ = ("age", "entered", "expires_at", "frequency", "key", "payload", "segment", "size_bytes")

    def __init__(self, key: str, payload: Payload, expires_at: float, size_bytes: int) -> None:
        self.key = key
        self.payload: Payload | None = payload
        self.expires_at = expires_at
        self.size_bytes = size_bytes
        self.segment: Segment | None = None  # None: no policy holds it any more
        self.frequency = self.age = self.entered = 0  # tinylfu.py


class Policy(Protocol):
    """Keeps the order of the entries and both bounds. Not thread-safe: the store holds its lock.

    An entry is never larger than max_bytes.
    """

    @property
    def size_bytes(self) -> int: ...
    def __init__(self, max_entries: int, max_bytes: int) -> None: ...
    def __len__(self) -> int: ...
    def insert(self, entry: Entry) -> list[Entry]:
        """What has to go for it. That can be the entry itself."""

    def resize(self, entry: Entry, size_bytes: int) -> list[Entry]:
        """What has to go, now that the entry has this size."""

    def read(self, entries: Collection[Entry]) -> None:
        """The entries were read, in this order. Those that have been removed since are skipped."""

    def remove(self, entry: Entry) -> None: ...


class Segment:
    """Entries from the least to the most recently used, and their bytes."""

    __slots__ = ("order", "size_bytes")

    def __init__(self) -> None:
        # Not a plain dict: there, finding the oldest key gets slower with every older one that was removed.
        self.order: OrderedDict[str, Entry] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self.order)

    def push(self, entry: Entry) -> None:
        """As the most recently used."""
        self.order[entry.key] = entry
        self.size_bytes += entry.size_bytes
        entry.segment = self

    def oldest(self) -> Entry:
        return next(iter(self.order.values()))

    def pop_oldest(self) -> Entry:
        _, entry = self.order.popitem(last=False)
        self.size_bytes -= entry.size_bytes
        entry.segment = None
        return entry

    def drop(self, entry: Entry) -> None:
        del self.order[entry.key]
        self.size_bytes -= entry.size_bytes
        entry.segment = None

    def resize(self, entry: Entry, size_bytes: int) -> None:
        self.size_bytes += size_bytes - entry.size_bytes
        entry.size_bytes = size_bytes
