"""django-redis as its documentation begins: pickle, its own pool made large enough for every caller."""

from __future__ import annotations

from typing import Any

from django.conf import settings

POOL = {"max_connections": 1000}


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
        USE_TZ=True,
    )
    from django.core.cache import caches

    return caches["default"]


class Side:
    BACKEND = "django_redis.cache.RedisCache"
    OPTIONS: dict[str, Any] = {"CONNECTION_POOL_KWARGS": POOL}

    def __init__(self, url: str, prefix: str) -> None:
        self.cache = configure(url, prefix, self.BACKEND, self.OPTIONS)
        for name in ("get", "set", "get_many", "aget", "aset", "aget_many", "aincr"):
            setattr(self, name, getattr(self.cache, name))

    def loading(self, load: Any, key: str) -> Any:
        return lambda: self.cache.get_or_set(key, load, 60)
