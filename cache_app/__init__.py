"""The cache: call → key → L1 memory → L2 Redis/file → codec → single flight → loader → store → stats."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calls import LoadTimeout as LoadTimeout
    from .compat import CacheConfig as CacheConfig
    from .compat import initialize_cache as initialize_cache
    from .decorators import cached as cached
    from .loading import aget_or_load as aget_or_load
    from .loading import get_or_load as get_or_load
    from .locks import LockLost as LockLost
    from .locks import LockTimeout as LockTimeout
    from .locks import cache_lock as cache_lock
    from .model_tags import ainvalidate_model as ainvalidate_model
    from .model_tags import invalidate_model as invalidate_model
    from .model_tags import model_tag as model_tag

_HOMES = {
    "CacheConfig": "compat",
    "LoadTimeout": "calls",
    "LockLost": "locks",
    "LockTimeout": "locks",
    "aget_or_load": "loading",
    "ainvalidate_model": "model_tags",
    "cache_lock": "locks",
    "cached": "decorators",
    "get_or_load": "loading",
    "initialize_cache": "compat",
    "invalidate_model": "model_tags",
    "model_tag": "model_tags",
}
__all__ = [
    "CacheConfig",
    "LoadTimeout",
    "LockLost",
    "LockTimeout",
    "aget_or_load",
    "ainvalidate_model",
    "cache_lock",
    "cached",
    "get_or_load",
    "initialize_cache",
    "invalidate_model",
    "model_tag",
]


def __getattr__(name: str) -> Any:  # PEP 562: the app registry is not ready when this package is imported
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
