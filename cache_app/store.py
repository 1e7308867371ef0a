"""What a cache keeps its entries in: bytes by full key. Memory, files, Redis, and memory in front of Redis are such stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .codec import Meta

NEW, EXISTING = "new", "existing"  # `only` of a write


class StoreFailed(Exception):
    """The store did not answer, or refused. __cause__ is its error: redis.RedisError, OSError or sqlite3.Error."""


@dataclass(slots=True)
class Held:
    """A value kept as it is, in a memory store that holds references instead of bytes."""

    value: Any
    meta: Meta | None
    size_bytes: int  # an estimate


Payload = bytes | Held


class Store(Protocol):
    """Every method may raise StoreFailed. Each has a twin for async code, which never blocks the loop.

    key: with prefix and version. ttl_s: seconds, None = for ever. Integers are ASCII digits, so that `incr` counts them.
    """

    def get(self, key: str) -> Payload | None: ...
    def get_many(self, keys: Sequence[str]) -> list[Payload | None]: ...
    def set(self, key: str, payload: Payload, ttl_s: float | None, *, only: str = "") -> bool: ...
    def set_many(self, items: Sequence[tuple[str, Payload, float | None]]) -> None: ...
    def delete_many(self, keys: Sequence[str]) -> int: ...
    def incr(self, key: str, delta: int) -> int | None:
        """Atomic; keeps the TTL. None: there is no such key. Raises ValueError for what is not an integer."""

    def expire(self, key: str, ttl_s: float | None) -> bool:
        """False: there is no such key."""

    def ttl_s(self, key: str) -> float | None:
        """Seconds left, math.inf = for ever. None: there is no such key."""

    def versions(self, keys: Sequence[str]) -> list[int]:
        """The numbers under the keys. A missing one is made first, as the store's time in microseconds."""

    def raise_versions(self, keys: Sequence[str]) -> None:
        """Each becomes the store's time in microseconds, or one more than it was: never a number that it had before."""

    def scan(self, pattern: str) -> Iterator[str]:
        """The full keys that match the glob (Redis' rules), in chunks."""

    def delete_matching(self, pattern: str) -> int: ...

    async def aget(self, key: str) -> Payload | None: ...
    async def aget_many(self, keys: Sequence[str]) -> list[Payload | None]: ...
    async def aset(self, key: str, payload: Payload, ttl_s: float | None, *, only: str = "") -> bool: ...
    async def aset_many(self, items: Sequence[tuple[str, Payload, float | None]]) -> None: ...
    async def adelete_many(self, keys: Sequence[str]) -> int: ...
    async def aincr(self, key: str, delta: int) -> int | None: ...
    async def aexpire(self, key: str, ttl_s: float | None) -> bool: ...
    async def attl_s(self, key: str) -> float | None: ...
    async def aversions(self, keys: Sequence[str]) -> list[int]: ...
    async def araise_versions(self, keys: Sequence[str]) -> None: ...
    def ascan(self, pattern: str) -> AsyncIterator[str]: ...
    async def adelete_matching(self, pattern: str) -> int: ...
