"""Django's own Redis backend."""

from __future__ import annotations

from typing import Any

from . import django_redis


class Side(django_redis.Side):
    BACKEND = "django.core.cache.backends.redis.RedisCache"
    OPTIONS: dict[str, Any] = {"max_connections": 1000}
