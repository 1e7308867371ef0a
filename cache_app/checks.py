"""System checks of the cache: each with an id, a hint and an anchor in docs/checks.md."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.utils.module_loading import import_string

from .connections import default_url
from .redis import BrainRedisCache

SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix")


@register(Tags.caches)
def default_cache_is_ours(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    backend = settings.CACHES["default"]["BACKEND"]
    try:
        ours = issubclass(import_string(backend), BrainRedisCache)
    except ImportError:
        ours = False  # Django's own message about it follows when the cache is used
    if ours:
        return _location() + _serializer()
    hint = (
        "Use cache_app.redis.BrainRedisCache: @cached, cache_lock and the limits of the gateway live there."
    )
    return [Error(f"CACHES['default'] is {backend}.", hint=_see(hint, "E001"), id="cache.E001")]


def _location() -> list[CheckMessage]:
    scheme = default_url().partition("://")[0]
    if scheme in SCHEMES:
        return []
    hint = f"Begin it with one of {', '.join(f'{known}://' for known in SCHEMES)}."
    return [
        Error("LOCATION of CACHES['default'] is not a Redis URL.", hint=_see(hint, "E002"), id="cache.E002")
    ]


def _serializer() -> list[CheckMessage]:
    serializer = settings.CACHES["default"].get("OPTIONS", {}).get("SERIALIZER", "")
    if "pickle" not in serializer.lower():
        return []
    hint = "Whoever can write to Redis runs code here. Leave SERIALIZER out: the default is JSON."
    return [Warning("CACHES['default'] unpickles what it reads.", hint=_see(hint, "W003"), id="cache.W003")]


def _see(hint: str, number: str) -> str:
    return f"{hint} See docs/checks.md#cache-{number.lower()}."
