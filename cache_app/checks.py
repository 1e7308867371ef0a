"""System checks of the cache: each with an id, a hint and an anchor in docs/checks.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.utils.module_loading import import_string

from . import addresses, backends, options
from .redis import BrainRedisCache


@register(Tags.caches)
def default_cache_is_on_redis(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    backend = settings.CACHES["default"]["BACKEND"]
    if _is(backend, BrainRedisCache):
        return []
    hint = "Use cache_app.redis.BrainRedisCache or cache_app.tiered.TieredCache: locks and the limits of the gateway live there."
    return [Error(f"CACHES['default'] is {backend}.", hint=_see(hint, "E001"), id="cache.E001")]


@register(Tags.caches)
def aliases_are_sound(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for alias in backends.ours():
        listed = settings.CACHES[alias]
        found += [*_location(alias, listed), *_timeout(alias, listed), *_options(alias, listed)]
    return found + _shared_prefixes()


def _location(alias: str, listed: Mapping[str, Any]) -> Iterator[CheckMessage]:
    if not _is(listed["BACKEND"], BrainRedisCache):
        return
    kinds = ", ".join(f"{known}://" for known in addresses.SCHEMES)
    hint = f"Begin it with one of {kinds}; redis+cluster:// and redis+sentinel:// name several servers."
    if not addresses.names_servers(listed.get("LOCATION", ""), listed.get("OPTIONS", {})):
        message = f"LOCATION of CACHES[{alias!r}] is not a Redis URL."
        yield Error(message, hint=_see(hint, "E002"), id="cache.E002")


def _timeout(alias: str, listed: Mapping[str, Any]) -> Iterator[CheckMessage]:
    timeout = listed.get("TIMEOUT", 300)
    if timeout is None or (
        isinstance(timeout, int | float) and not isinstance(timeout, bool) and timeout >= 0
    ):
        return
    message = f"TIMEOUT of CACHES[{alias!r}] is {timeout!r}: Django would silently take 300."
    hint = "Give it in seconds, or None for ever."
    yield Error(message, hint=_see(hint, "E005"), id="cache.E005")


def _options(alias: str, listed: Mapping[str, Any]) -> Iterator[CheckMessage]:
    chosen, problems = options.read(alias, listed.get("OPTIONS", {}))
    for problem in problems:
        yield Error(problem.message, hint=_see(problem.hint, "E004"), id="cache.E004")
    if chosen.SERIALIZER == "pickle":
        hint = "Whoever holds one of KEYS runs code here. SERIALIZER = 'typed' keeps what JSON loses without that."
        yield Warning(f"CACHES[{alias!r}] unpickles what it reads.", hint=_see(hint, "W003"), id="cache.W003")


def _shared_prefixes() -> list[CheckMessage]:
    """Two aliases with the same keys: `clear` of one empties the other, and a second tier is bypassed by the first."""
    places: dict[tuple[str, str], list[str]] = {}
    for alias in backends.ours():
        listed = settings.CACHES[alias]
        place = (str(listed.get("LOCATION", "")), str(listed.get("KEY_PREFIX", "")))
        places.setdefault(place, []).append(alias)
    hint = "Give each a KEY_PREFIX of its own."
    return [
        Warning(
            f"CACHES {' and '.join(map(repr, aliases))} share LOCATION and KEY_PREFIX.",
            hint=_see(hint, "W006"),
            id="cache.W006",
        )
        for aliases in places.values()
        if len(aliases) > 1
    ]


def _is(backend: str, kind: type) -> bool:
    try:
        return issubclass(import_string(backend), kind)
    except (ImportError, TypeError):
        return False  # Django's own message about it follows when the cache is used


def _see(hint: str, number: str) -> str:
    return f"{hint} See docs/checks.md#cache-{number.lower()}."
