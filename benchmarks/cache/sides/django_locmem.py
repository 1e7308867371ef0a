"""Django's cache in memory, which pickles."""

from __future__ import annotations

from typing import Any

from . import django_redis


class Side(django_redis.Side):
    BACKEND = "django.core.cache.backends.locmem.LocMemCache"
    OPTIONS: dict[str, Any] = {"MAX_ENTRIES": 10_000}
