"""Ours on Redis: JSON, statistics on, everything else as it is by default."""

from __future__ import annotations

from typing import Any

from django.conf import settings

BACKEND, OPTIONS = "cache_app.redis.BrainRedisCache", {}


def configure(url: str, prefix: str, backend: str, options: dict[str, Any]) -> Any:
    settings.configure(
        CACHES={
            "default": {
                "BACKEND": backend,
                "LOCATION": url,
                "KEY_PREFIX": prefix,
                "TIMEOUT": 300,
                "OPTIONS": options,
            }
        },
        BRAIN={},
        USE_TZ=True,
    )
    from django.core.cache import caches

    return caches["default"]


class Side:
    def __init__(self, url: str, prefix: str) -> None:
        cache = configure(url, prefix, BACKEND, OPTIONS)
        for name in ("get", "set", "get_many", "aget", "aset", "aget_many", "aincr"):
            setattr(self, name, getattr(cache, name))

    def loading(self, load: Any, key: str) -> Any:
        from cache_app import cached

        return cached(ttl=60, key=lambda: key)(load)

    aloading = loading
