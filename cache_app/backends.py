"""The cache of an alias for code that is not in a request: one instance per process, safe in all threads and loops."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.cache import InvalidCacheBackendError
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from .backend import BrainCache

_known: dict[str, BrainCache] = {}
_chosen: BrainCache | None = None


def backend(alias: str | None = None) -> BrainCache:
    """alias: of CACHES; None = what `initialize_cache` chose, else "default".

    Raises InvalidCacheBackendError for an alias that does not exist or is none of our backends.
    """
    if alias is None:
        if _chosen is not None:
            return _chosen
        alias = "default"
    found = _known.get(alias)
    if found is None:
        found = _known[alias] = _made(alias)
    return found


def choose(cache: BrainCache | None) -> None:
    """From now on `backend()` is this one; None: CACHES["default"] again."""
    global _chosen
    _chosen = cache


def ours() -> list[str]:
    """The aliases of CACHES that are ours, in their order."""
    return [alias for alias, listed in settings.CACHES.items() if _is_ours(listed.get("BACKEND", ""))]


def _made(alias: str) -> BrainCache:
    listed = settings.CACHES.get(alias)
    if listed is None:
        raise InvalidCacheBackendError(f"CACHES has no alias {alias!r}; it has {', '.join(settings.CACHES)}")
    params = dict(listed)
    kind = import_string(params.pop("BACKEND"))
    if not issubclass(kind, BrainCache):
        raise InvalidCacheBackendError(f"CACHES[{alias!r}] is {kind.__name__}, which is none of cache_app's")
    made: BrainCache = kind(params.pop("LOCATION", ""), params)
    return made


def _is_ours(path: str) -> bool:
    try:
        return issubclass(import_string(path), BrainCache)
    except (ImportError, TypeError):
        return False


def _changed(*, setting: str, **_: Any) -> None:
    if setting == "CACHES":
        _known.clear()


setting_changed.connect(_changed, dispatch_uid=__name__)
