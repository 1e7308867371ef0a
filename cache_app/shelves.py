"""What a store can tell of its keys without using them: pages by cursor, and what stands under each.

RedisShelf   SCAN, never KEYS; a page costs a bounded number of steps
StoreShelf   memory and files: all keys are near, and pages go by the order of the keys
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from .cluster import slot_of
from .store import Held, Payload, Store

HEAD_BYTES = 4_096  # of an entry, for what it says about itself
_MOST_SCANNED = 20_000  # keys of the database that one page looks at
_MOST_HELD = 500_000  # keys of a memory or a file cache that one page looks at


@dataclass(frozen=True, slots=True)
class Slot:
    """What stands under a key. head: its beginning, or the object that a memory store holds; None: it is gone by now.

    kind: "string", or another type of Redis'. size_bytes: of the entry. memory_bytes: with all that goes with it.
    """

    full: str
    head: Payload | None
    ttl_s: float | None = None  # infinite: for ever
    size_bytes: int = 0
    memory_bytes: int | None = None
    kind: str = "string"


@dataclass(frozen=True, slots=True)
class Keys:
    """A page. cursor: of the next one, "" after the last. examined: keys that were looked at for it."""

    found: list[str]
    cursor: str
    examined: int


class Shelf(Protocol):
    def page(self, pattern: str, cursor: str, count: int) -> Keys:
        """About `count` keys that match the glob. Raises ValueError for a cursor that is none."""

    def slots(self, keys: Sequence[str]) -> list[Slot]: ...

    def payload(self, key: str, most_bytes: int) -> Payload | None:
        """The entry; None when it is gone or longer."""

    def total(self) -> int:
        """Keys of the whole database, whoever they belong to."""


class RedisShelf:
    """link: to one server, or to a cluster, whose primaries are gone through one after the other."""

    def __init__(self, link: Any) -> None:
        self._link = link

    def page(self, pattern: str, cursor: str, count: int) -> Keys:
        """cursor: "node-cursor of that node"."""
        nodes = self._nodes()
        node, at = _cursor(cursor, len(nodes))
        found, examined = dict[str, None](), 0
        while True:
            reply, batch = nodes[node].read("SCAN", at, "MATCH", _raw(pattern), "COUNT", count)
            at, examined = int(reply), examined + count
            found.update(dict.fromkeys(key.decode("utf-8", "surrogateescape") for key in batch))
            if at == 0:
                node += 1
            if node == len(nodes) or len(found) >= count or examined >= _MOST_SCANNED:
                return Keys(list(found), f"{node}-{at}" if node < len(nodes) else "", examined)

    def slots(self, keys: Sequence[str]) -> list[Slot]:
        found: dict[str, Slot] = {}
        for link, some in self._by_node(keys):
            commands = [command for key in map(_raw, some) for command in _asked(key)]
            replies = link.pipeline(commands)
            width = len(commands) // len(some)
            for at, key in enumerate(some):
                found[key] = _slot(key, replies[at * width : (at + 1) * width])
        return [found[key] for key in keys]

    def payload(self, key: str, most_bytes: int) -> bytes | None:
        data = self._link.pipeline([("GETRANGE", _raw(key), 0, most_bytes)])[0]
        return data if isinstance(data, bytes) and 0 < len(data) <= most_bytes else None

    def total(self) -> int:
        return sum(int(node.read("DBSIZE")) for node in self._nodes())

    def _nodes(self) -> list[Any]:
        return sorted(self._link.primaries(), key=lambda link: str(link.name))

    def _by_node(self, keys: Sequence[str]) -> Iterator[tuple[Any, list[str]]]:
        """MEMORY USAGE has its key in a place where no cluster client looks for it, so each node is asked by itself."""
        if not self._link.is_cluster:
            if keys:
                yield self._link, list(keys)
            return
        self._link.primaries()
        owners: dict[Any, list[str]] = {}
        for key in keys:
            owners.setdefault(self._link.slots.owner(slot_of(("GET", _raw(key)))), []).append(key)
        for node, some in owners.items():
            yield self._link.to(node), some


class StoreShelf:
    """Of a store in this process or on this machine. Looking at an entry does not count as using it, where it can tell."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._peek = getattr(store, "peek", store.get)

    def page(self, pattern: str, cursor: str, count: int) -> Keys:
        """cursor: the last key of the page before."""
        seen = 0

        def later() -> Iterator[str]:
            nonlocal seen
            for key in islice(self._store.scan(pattern), _MOST_HELD):
                seen += 1
                if key > cursor:
                    yield key

        found = heapq.nsmallest(count + 1, later())
        return Keys(found[:count], found[count - 1] if len(found) > count else "", seen)

    def slots(self, keys: Sequence[str]) -> list[Slot]:
        return [self._slot(key) for key in keys]

    def payload(self, key: str, most_bytes: int) -> Payload | None:
        found: Payload | None = self._peek(key)
        return found if found is not None and size_of(found) <= most_bytes else None

    def total(self) -> int:
        return sum(1 for _ in islice(self._store.scan("*"), _MOST_HELD))

    def _slot(self, key: str) -> Slot:
        payload = self._peek(key)
        if payload is None:
            return Slot(key, None)
        head = payload if isinstance(payload, Held) else payload[:HEAD_BYTES]
        return Slot(key, head, self._store.ttl_s(key), size_of(payload))


def link_of(cache: Any) -> Any:
    """The way to the servers behind an alias; None of memory and files."""
    return getattr(getattr(cache.store, "l2", cache.store), "link", None)


def all_pages(shelf: Shelf, pattern: str, most_examined: int, count: int = 1_000) -> Iterator[Keys]:
    """Page after page, until the last one or until so many keys were looked at."""
    cursor, examined = "", 0
    while True:
        page = shelf.page(pattern, cursor, count)
        yield page
        cursor, examined = page.cursor, examined + page.examined
        if not cursor or examined >= most_examined:
            return


def size_of(payload: Payload) -> int:
    return payload.size_bytes if isinstance(payload, Held) else len(payload)


def chunks(keys: Iterable[str], size: int) -> Iterator[list[str]]:
    left = iter(keys)
    while chunk := list(islice(left, size)):
        yield chunk


def _raw(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _cursor(text: str, nodes: int) -> tuple[int, int]:
    node, dash, at = (text or "0-0").partition("-")
    if not (dash and node.isdecimal() and at.isdecimal() and int(node) < nodes and int(at) < 2**64):
        raise ValueError("no cursor of this list")
    return int(node), int(at)


def _asked(key: bytes) -> list[tuple[Any, ...]]:
    return [
        ("TYPE", key), ("PTTL", key), ("STRLEN", key), ("GETRANGE", key, 0, HEAD_BYTES - 1), ("MEMORY", "USAGE", key),
    ]  # fmt: skip


def _slot(key: str, replies: Sequence[Any]) -> Slot:
    kind, ttl_ms, length, head, memory = replies
    name = kind.decode() if isinstance(kind, bytes) else "unknown"
    if name == "none":
        return Slot(key, None)
    return Slot(
        full=key,
        head=head if isinstance(head, bytes) else b"",
        ttl_s=math.inf if not isinstance(ttl_ms, int) or ttl_ms < 0 else ttl_ms / 1000,
        size_bytes=length if isinstance(length, int) else 0,
        # A server that does not allow MEMORY USAGE answers with an error in its place.
        memory_bytes=memory if isinstance(memory, int) else None,
        kind=name,
    )
