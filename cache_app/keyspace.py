"""How the server behind an alias stands: its memory, what it evicts, and how many keys there are ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis._parsers.helpers import parse_info

from . import browsing, operations
from .backend import BrainCache
from .health import product
from .shelves import link_of

HIGH_MEMORY = 0.9  # of maxmemory: from here on Redis is close to evicting or refusing


@dataclass(frozen=True, slots=True)
class Server:
    """Of the whole server: all of its databases and clients, since its start. fragmentation: resident / used memory."""

    name: str  # where it is, without credentials
    server: str
    used_memory_bytes: int
    peak_memory_bytes: int
    resident_bytes: int
    max_memory_bytes: int  # 0 = no limit
    policy: str  # what it does at the limit
    fragmentation: float | None
    hits: int
    misses: int
    evicted: int
    expired: int
    clients: int
    uptime_s: int

    @property
    def memory_ratio(self) -> float | None:
        """0 to 1 of maxmemory; None without a limit."""
        return self.used_memory_bytes / self.max_memory_bytes if self.max_memory_bytes else None

    @property
    def degraded(self) -> str | None:
        """Why somebody should look, or None."""
        ratio = self.memory_ratio
        return f"memory is {ratio:.0%} of maxmemory" if ratio is not None and ratio >= HIGH_MEMORY else None


@dataclass(frozen=True, slots=True)
class Overview:
    """The servers of an alias, and how many keys there are under its prefix."""

    servers: list[Server]
    keys: int
    keys_exact: bool

    @property
    def server(self) -> str:
        return self.servers[0].server

    @property
    def degraded(self) -> str | None:
        return next((found.degraded for found in self.servers if found.degraded), None)

    def sum(self, figure: str) -> int:
        """Of one of Server's numbers."""
        return sum(getattr(found, figure) for found in self.servers)

    def document(self) -> dict[str, Any]:
        """As JSON: what a single server tells, of a cluster the sums."""
        sums = {
            figure: self.sum(figure)
            for figure in ("used_memory_bytes", "max_memory_bytes", "hits", "misses", "evicted")
        }
        counted = {"keys": self.keys, "keys_exact": self.keys_exact, "degraded": self.degraded}
        return {"server": self.server, **sums, **counted}


def overview(alias: str = "default") -> Overview | None:
    """None of an alias without a server, or that is not ours. Raises operations.CacheUnavailable."""
    if alias not in operations.aliases():
        return None
    cache = operations.cache_of(alias)
    with operations.asking():
        found = servers(cache)
        return Overview(found, *browsing.count(cache)) if found else None


def servers(cache: BrainCache) -> list[Server]:
    """One, or the primaries of a cluster; none of memory and files."""
    link = link_of(cache)
    if link is None:
        return []
    nodes = sorted(link.primaries(), key=lambda node: str(node.name))
    return [read(node.name, parse_info(node.read("INFO"))) for node in nodes]


def read(name: str, info: Mapping[str, Any]) -> Server:
    """The answer to INFO."""
    used, resident = int(info["used_memory"]), int(info.get("used_memory_rss", 0))
    return Server(
        name=name,
        server=product(dict(info)),
        used_memory_bytes=used,
        peak_memory_bytes=int(info.get("used_memory_peak", used)),
        resident_bytes=resident,
        max_memory_bytes=int(info.get("maxmemory", 0)),
        policy=str(info.get("maxmemory_policy", "")),
        fragmentation=round(resident / used, 2) if resident and used else None,
        hits=int(info.get("keyspace_hits", 0)),
        misses=int(info.get("keyspace_misses", 0)),
        evicted=int(info.get("evicted_keys", 0)),
        expired=int(info.get("expired_keys", 0)),
        clients=int(info.get("connected_clients", 0)),
        uptime_s=int(info.get("uptime_in_seconds", 0)),
    )
