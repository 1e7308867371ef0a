"""cashews on Redis, async only; its distributed lock is on where one loader is counted."""

from __future__ import annotations

from typing import Any

from cashews import Cache


class Side:
    def __init__(self, url: str, prefix: str) -> None:
        self.cache, self.prefix = Cache(), prefix
        self.cache.setup(url, max_connections=1000)

    def set(self, key: str, value: Any) -> None:
        raise TypeError("cashews has no sync calls")

    async def aget(self, key: str) -> Any:
        return await self.cache.get(f"{self.prefix}:{key}")

    async def aset(self, key: str, value: Any) -> Any:
        return await self.cache.set(f"{self.prefix}:{key}", value, expire=300)

    async def aget_many(self, keys: list[str]) -> Any:
        return await self.cache.get_many(*(f"{self.prefix}:{key}" for key in keys))

    async def aincr(self, key: str) -> int:
        return await self.cache.incr(f"{self.prefix}:{key}")

    def aloading(self, load: Any, key: str) -> Any:
        return self.cache(ttl=60, key=f"{self.prefix}:{key}", lock=True)(load)
