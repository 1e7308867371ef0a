"""`initialize_cache(CacheConfig(backend="redis"))`: a cache chosen in code, with awaitable operations and ttl in seconds.

A thin face over the CACHES backends. What it chose is what `@cached` and `cache_lock` use from then on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from . import addresses, backends, options
from .backend import BrainCache
from .connections import default_url, key_prefix

KINDS = {
    "redis": "cache_app.redis.BrainRedisCache",
    "tiered": "cache_app.tiered.TieredCache",
    "memory": "cache_app.memory.MemoryCache",
    "file": "cache_app.file.FileCache",
}
ON_REDIS = ("redis", "tiered")


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """backend: "redis", "tiered", "memory" or "file".

    location: a URL or a directory; by default that of CACHES["default"], or `cache` in the platform's data directory.
    default_ttl: seconds, None = for ever. options: as OPTIONS of a CACHES alias (docs/cache.md).
    """

    backend: str = "redis"
    location: str = ""
    key_prefix: str = ""  # "" = that of CACHES["default"]
    default_ttl: float | None = 300
    options: Mapping[str, Any] = field(default_factory=dict)


class Cache:
    """What `initialize_cache` returns. `backend` is the Django cache below it."""

    def __init__(self, backend: BrainCache) -> None:
        self.backend = backend

    async def get(self, key: Any, default: Any = None) -> Any:
        return await self.backend.aget(key, default)

    async def set(
        self,
        key: Any,
        value: Any,
        ttl: Any = DEFAULT_TIMEOUT,
        *,
        tags: Sequence[str] = (),
        sliding: bool = False,
    ) -> bool:
        """ttl: seconds, None = for ever."""
        return await self.backend.aset(key, value, ttl, tags=tags, sliding=sliding)

    async def add(self, key: Any, value: Any, ttl: Any = DEFAULT_TIMEOUT) -> bool:
        """False: there is one already."""
        return await self.backend.aadd(key, value, ttl)

    async def get_many(self, keys: Iterable[Any]) -> dict[Any, Any]:
        return await self.backend.aget_many(keys)

    async def set_many(self, data: Mapping[Any, Any], ttl: Any = DEFAULT_TIMEOUT) -> list[Any]:
        """Returns the keys that could not be stored."""
        return await self.backend.aset_many(data, ttl)

    async def delete(self, key: Any) -> bool:
        return await self.backend.adelete(key)

    async def exists(self, key: Any) -> bool:
        return await self.backend.ahas_key(key)

    async def incr(self, key: Any, delta: int = 1) -> int:
        """Raises ValueError for a key that does not exist."""
        return await self.backend.aincr(key, delta)

    async def expire(self, key: Any, ttl: float | None) -> bool:
        return await self.backend.atouch(key, ttl)

    async def ttl(self, key: Any) -> int | None:
        """Whole seconds left. None: for ever. 0: there is no such key."""
        return await self.backend.attl(key)

    async def clear(self) -> bool:
        """Remove what stands under the key prefix, and nothing else."""
        return await self.backend.aclear()

    async def invalidate_tags(self, *tags: str) -> bool:
        return await self.backend.ainvalidate_tags(*tags)


def initialize_cache(config: CacheConfig | None = None) -> Cache:
    """Raises ImproperlyConfigured for a backend or an option that does not exist, and for a value that cannot be meant."""
    chosen = config or CacheConfig()
    path = KINDS.get(chosen.backend)
    if path is None:
        raise ImproperlyConfigured(
            f"CacheConfig(backend={chosen.backend!r}): use one of {', '.join(map(repr, KINDS))}."
        )
    _, problems = options.read("default", chosen.options, "CacheConfig.options")
    if problems:
        raise ImproperlyConfigured(f"{problems[0].message} {problems[0].hint}")
    if not _is_life(chosen.default_ttl):
        raise ImproperlyConfigured(
            f"CacheConfig(default_ttl={chosen.default_ttl!r}): give it in seconds, or None for ever."
        )
    location = chosen.location or _location(chosen.backend)
    if chosen.backend in ON_REDIS and not addresses.names_servers(location, chosen.options):
        raise ImproperlyConfigured(
            "CacheConfig.location is not a Redis URL: begin it with one of "
            f"{', '.join(f'{scheme}://' for scheme in addresses.SCHEMES)}."
        )
    params: dict[str, Any] = {
        "KEY_PREFIX": chosen.key_prefix or key_prefix(),
        "TIMEOUT": chosen.default_ttl,
        "OPTIONS": dict(chosen.options),
    }
    made: BrainCache = import_string(path)(location, params)
    made.default_timeout = chosen.default_ttl  # Django takes whole seconds alone
    backends.choose(made)
    return Cache(made)


def _is_life(ttl_s: object) -> bool:
    if ttl_s is None:
        return True
    return isinstance(ttl_s, int | float) and not isinstance(ttl_s, bool) and 0 < ttl_s < math.inf


def _location(kind: str) -> str:
    if kind == "memory":
        return "initialize_cache"
    if kind != "file":
        return default_url()
    data_dir = getattr(settings, "BRAIN_DATA_DIR", None)
    if data_dir is None:
        raise ImproperlyConfigured('CacheConfig(backend="file") needs a location: a directory of its own.')
    return str(Path(data_dir) / "cache")
