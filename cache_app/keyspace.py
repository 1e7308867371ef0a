"""What Redis holds for us: an overview, and clearing it by prefix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from foundation import audit

from .connections import client, everything_of, key_prefix, unlink_matching
from .health import product

SAMPLE_KEYS = 20_000  # looked at for the count; a larger database is extrapolated from them
HIGH_MEMORY = 0.9  # of maxmemory: from here on Redis is close to evicting or refusing


@dataclass(frozen=True, slots=True)
class Overview:
    server: str
    used_memory_bytes: int
    max_memory_bytes: int  # 0 = no limit
    keys: int  # under our prefix
    keys_exact: bool
    hits: int  # of the server since its start, from all of its clients
    misses: int
    evicted: int

    @property
    def degraded(self) -> str | None:
        """Why somebody should look, or None."""
        if self.max_memory_bytes and self.used_memory_bytes >= HIGH_MEMORY * self.max_memory_bytes:
            return f"memory is {self.used_memory_bytes / self.max_memory_bytes:.0%} of maxmemory"
        return None


def overview() -> Overview:
    """Raises redis.RedisError when Redis does not answer."""
    information: dict[str, Any] = client().info()
    keys, exact = _count(everything_of(key_prefix()))
    return Overview(
        server=product(information),
        used_memory_bytes=information["used_memory"],
        max_memory_bytes=information.get("maxmemory", 0),
        keys=keys,
        keys_exact=exact,
        hits=information["keyspace_hits"],
        misses=information["keyspace_misses"],
        evicted=information["evicted_keys"],
    )


def clear(*, actor: Any, source: str, **request: Any) -> int:
    """Remove every key of the default cache, `@cached` results included; locks and other prefixes stay. How many."""
    prefix = key_prefix()
    removed = unlink_matching(client(), everything_of(prefix))
    after = {"removed": removed}
    audit.record(
        actor=actor, action="cache.clear", target=f"cache:{prefix}", after=after, source=source, **request
    )
    return removed


def _count(pattern: str) -> tuple[int, bool]:
    """Keys that match, and whether all keys were looked at."""
    total, seen, ours, cursor = client().dbsize(), 0, 0, 0
    while True:
        cursor, found = client().scan(cursor, match=pattern, count=1000)
        seen, ours = seen + 1000, ours + len(found)
        if cursor == 0:
            return ours, True
        if seen >= SAMPLE_KEYS:
            return round(ours * total / seen), False
