"""django-redis with its JSON serializer."""

from __future__ import annotations

from . import django_redis


class Side(django_redis.Side):
    OPTIONS = django_redis.Side.OPTIONS | {"SERIALIZER": "django_redis.serializers.json.JSONSerializer"}
