"""aiocache on Redis, async only, with its stampede lock where one loader is counted."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import aiocache
from aiocache.backends.redis import RedisCache
from aiocache.serializers import PickleSerializer


class Side:
    def __init__(self, url: str, prefix: str) -> None:
        address = urlsplit(url)
        self.cache = RedisCache(
            endpoint=address.hostname,
            port=address.port,
            namespace=prefix,
            serializer=PickleSerializer(),
            pool_max_size=1000,
        )
        self.prefix = prefix

    def set(self, key: str, value: Any) -> None:
        raise TypeError("aiocache has no sync calls")

    async def aget(self, key: str) -> Any:
        return await self.cache.get(key)

    async def aset(self, key: str, value: Any) -> Any:
        return await self.cache.set(key, value, ttl=300)

    async def aget_many(self, keys: list[str]) -> Any:
        return await self.cache.multi_get(keys)

    def aloading(self, load: Any, key: str) -> Any:
        made = aiocache.cached_stampede(ttl=60, key=key, lease=2)(load)
        made.cache = self.cache
        return made
