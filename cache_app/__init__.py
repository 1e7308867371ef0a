"""The cache: call → key → L1 memory → L2 Redis/file → codec → single flight → loader → store → stats."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .compat import CacheConfig as CacheConfig
    from .compat import initialize_cache as initialize_cache
    from .decorators import cached as cached
    from .locks import LockTimeout as LockTimeout
    from .locks import cache_lock as cache_lock

_HOMES = {
    "CacheConfig": "compat",
    "LockTimeout": "locks",
    "cache_lock": "locks",
    "cached": "decorators",
    "initialize_cache": "compat",
}
__all__ = ["CacheConfig", "LockTimeout", "cache_lock", "cached", "initialize_cache"]


def __getattr__(name: str) -> Any:  # PEP 562: the app registry is not ready when this package is imported
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
