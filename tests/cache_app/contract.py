"""The kinds of cache that keep one contract, and a caller that puts the same question to both of its halves."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from django.utils.module_loading import import_string

from cache_app.backend import BrainCache
from cache_app.connections import default_url

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "redis": ("cache_app.redis.BrainRedisCache", {}),
    "redis-typed-signed-zstd": (
        "cache_app.redis.BrainRedisCache",
        {"SERIALIZER": "typed", "SIGN": True, "KEYS": ("k" * 32,), "COMPRESSOR": "zstd"},
    ),
    "tiered": ("cache_app.tiered.TieredCache", {}),
    "tiered-references": ("cache_app.tiered.TieredCache", {"COPY": False}),
    "memory": ("cache_app.memory.MemoryCache", {}),
    "memory-references": ("cache_app.memory.MemoryCache", {"COPY": False}),
    "file": ("cache_app.file.FileCache", {}),
}


def make(kind: str, prefix: str, folder: Any, **options: Any) -> BrainCache:
    path, own = KINDS[kind]
    location = {"memory": prefix, "file": str(folder)}.get(kind.split("-")[0], default_url())
    made: BrainCache = import_string(path)(
        location, {"KEY_PREFIX": prefix, "TIMEOUT": 300, "OPTIONS": own | options}
    )
    return made


class Calls:
    """`calls.get("a")` is `cache.get("a")`, or `await cache.aget("a")` on one loop that lives as long as the test."""

    def __init__(self, cache: Any, runner: asyncio.Runner | None) -> None:
        self.cache, self.runner = cache, runner

    def __getattr__(self, name: str) -> Any:
        if self.runner is None:
            return getattr(self.cache, name)
        runner, method = self.runner, getattr(self.cache, f"a{name}")

        def call(*arguments: Any, **options: Any) -> Any:
            made = method(*arguments, **options)
            if inspect.isasyncgen(made):
                return runner.run(_all(made))
            return runner.run(made)

        return call


async def _all(found: Any) -> list[Any]:
    return [item async for item in found]
