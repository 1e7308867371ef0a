"""Django's cache on Redis or Valkey: django-redis on our pools, JSON, atomic aincr, and nothing is ever flushed."""

from __future__ import annotations

from typing import Any

import orjson
import redis
import structlog
from asgiref.sync import sync_to_async
from django_redis.cache import RedisCache
from django_redis.client import DefaultClient
from django_redis.pool import ConnectionFactory
from django_redis.serializers.base import BaseSerializer

from . import codec
from .connections import aclient, everything_of, first_of, pool_of, unlink_matching

log = structlog.get_logger(__name__)

_CORRUPT = object()
_INCREMENT = """
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
return redis.call('INCRBY', KEYS[1], ARGV[1])
"""


class PooledConnections(ConnectionFactory):
    """django-redis' factory on the pools of this module."""

    def get_or_create_connection_pool(self, params: dict[str, Any]) -> redis.BlockingConnectionPool:
        options = {name: value for name, value in params.items() if name != "url"} | self.pool_cls_kwargs
        options.pop("parser_class", None)
        return pool_of(params["url"], "main", **options)


class JSONSerializer(BaseSerializer):
    """JSON by orjson. What JSON cannot tell apart (datetime, Decimal, bytes, set, dataclass) is a TypeError."""

    def dumps(self, value: Any) -> bytes:
        return orjson.dumps(value, option=codec.OPTIONS)

    def loads(self, value: bytes) -> Any:
        return orjson.loads(value)


class BrainClient(DefaultClient):
    """DefaultClient that reads an undecodable entry as a miss and removes keys by prefix, never by FLUSHDB."""

    def decode(self, value: Any) -> Any:
        try:
            return super().decode(value)
        except ValueError as error:
            log.warning("cache_entry_corrupt", error=type(error).__name__)
            return _CORRUPT

    def get(self, key: str, default: Any = None, version: int | None = None, client: Any = None) -> Any:
        value = super().get(key, default=default, version=version, client=client)
        return default if value is _CORRUPT else value

    def get_many(self, keys: Any, version: int | None = None, client: Any = None) -> dict[str, Any]:
        found = super().get_many(keys, version=version, client=client)
        return {key: value for key, value in found.items() if value is not _CORRUPT}

    def clear(self, client: Any = None) -> None:
        unlink_matching(client or self.get_client(write=True), everything_of(self._backend.key_prefix))

    def delete_pattern(
        self,
        pattern: str,
        version: int | None = None,
        prefix: str | None = None,
        client: Any = None,
        itersize: Any = None,
    ) -> int:
        full = self.make_pattern(pattern, version=version, prefix=prefix)
        return unlink_matching(client or self.get_client(write=True), full)


class BrainRedisCache(RedisCache):
    """The CACHES backend: django-redis on our pools, JSON unless OPTIONS say otherwise, atomic aincr and adecr."""

    def __init__(self, server: Any, params: dict[str, Any]) -> None:
        ours = {
            "CLIENT_CLASS": "cache_app.redis.BrainClient",
            "CONNECTION_FACTORY": "cache_app.redis.PooledConnections",
            "SERIALIZER": "cache_app.redis.JSONSerializer",
        }
        super().__init__(server, params | {"OPTIONS": ours | params.get("OPTIONS", {})})

    async def aincr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        """Atomic, and the key keeps its TTL (Django's own is a get and a set). Raises ValueError for a missing key."""
        made = self.client.make_key(key, version=version)
        try:
            value = await aclient(first_of(self._server)).eval(_INCREMENT, 1, made, delta)
        except redis.ResponseError:  # not an integer to Redis (a float, or beyond 64 bits)
            return await sync_to_async(self.incr)(key, delta, version=version)
        if value is None:
            raise ValueError(f"Key {key!r} not found")
        return int(value)

    async def adecr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        return await self.aincr(key, -delta, version=version)
