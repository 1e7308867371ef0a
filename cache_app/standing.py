"""How an alias stands, as pages, API and command show it: what it keeps and where, its server, its connections.

What a process keeps to itself (memory, L1, breaker, tracker) is told of the process that is asked, and of no other.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from . import browsing, keyspace, operations
from .backend import BrainCache
from .file import FileStore
from .keyspace import Server
from .memory import MemoryStore
from .shelves import link_of

REDIS, TIERED, MEMORY, FILE = "redis", "tiered", "memory", "file"
UNLISTED = "not in CACHES"
OF_PROCESS = "of this process alone"


@dataclass(frozen=True, slots=True)
class Held:
    """What memory or files hold. most_bytes, most_entries: the limits."""

    entries: int
    size_bytes: int
    most_entries: int
    most_bytes: int


@dataclass(frozen=True, slots=True)
class Standing:
    """error: why the store does not answer, "" when it does. breakers: server → "closed", "open" or "half open".

    held: of memory or files, of the L1 of a tiered alias. tracker: server → whether it is heard; None: there is none.
    """

    alias: str
    kind: str
    prefix: str
    serializer: str
    compressor: str | None
    on_down: str
    error: str = ""
    servers: list[Server] = field(default_factory=list)
    keys: int | None = None
    keys_exact: bool = True
    held: Held | None = None
    breakers: Mapping[str, str] = field(default_factory=dict)
    tracker: Mapping[str, bool] | None = None

    @property
    def is_of_process(self) -> bool:
        """Whether another process has another cache under the same alias."""
        return self.kind == MEMORY

    @property
    def degraded(self) -> str | None:
        """Why somebody should look, or None."""
        if self.error:
            return self.error
        if opened := [name for name, state in self.breakers.items() if state != "closed"]:
            return f"the breaker of {', '.join(opened)} is open"
        if self.tracker and not all(self.tracker.values()):
            return "the tracker is down: memory is not used"
        return next((found.degraded for found in self.servers if found.degraded), None)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "degraded": self.degraded, "is_of_process": self.is_of_process}


def all_aliases() -> list[Standing]:
    return [of(alias) for alias in operations.aliases()]


def unlisted(alias: str) -> Standing:
    """Of a cache that code made for itself (`initialize_cache`): its counts are known, and nothing else."""
    return Standing(alias, UNLISTED, prefix="", serializer="", compressor=None, on_down="")


def of(alias: str) -> Standing:
    """Never raises for a store that does not answer. Raises operations.UnknownAlias."""
    cache = operations.cache_of(alias)
    known: dict[str, Any] = {
        "alias": alias,
        "kind": kind_of(cache),
        "prefix": cache.key_prefix,
        "serializer": cache.options.SERIALIZER,
        "compressor": cache.options.COMPRESSOR,
        "on_down": cache.options.ON_DOWN,
        "breakers": breakers_of(cache),
        "tracker": tracker_of(cache),
    }
    try:
        with operations.asking():
            known["servers"] = keyspace.servers(cache)
            known["held"] = held_of(cache)
            known["keys"], known["keys_exact"] = browsing.count(cache)
    except operations.CacheUnavailable as error:
        known["error"] = str(error)
    return Standing(**known)


def kind_of(cache: BrainCache) -> str:
    if link_of(cache) is not None:
        return TIERED if hasattr(cache.store, "l1") else REDIS
    return FILE if isinstance(cache.store, FileStore) else MEMORY


def tracker_of(cache: BrainCache) -> dict[str, bool] | None:
    """Server → whether its messages are heard; None of an alias that keeps nothing near."""
    tracker = getattr(cache.store, "tracker", None)
    return None if tracker is None else dict(tracker.state())


def breakers_of(cache: BrainCache) -> dict[str, str]:
    """Server → "closed", "open" or "half open", as this process has it; of those that it has asked."""
    link = link_of(cache)
    if link is None:
        return {}
    links = [link.to(node) for node in link.slots.primaries] if link.is_cluster else [link]
    return {one.name: one.breaker.state(time.monotonic()).replace("_", " ") for one in links}


def held_of(cache: BrainCache) -> Held | None:
    """None of a Redis without memory in front of it."""
    store: Any = cache.store
    near = store.l1.memory if hasattr(store, "l1") else store
    most = (cache.options.MAX_ENTRIES, cache.options.MAX_BYTES)
    if isinstance(near, MemoryStore):
        return Held(len(near), near.size_bytes, *most)
    if isinstance(near, FileStore):
        found = near.usage()
        return Held(found.entries, found.size_bytes, *most)
    return None
