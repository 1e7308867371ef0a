"""Slow and repeated statements: statement → time, repeats → one log line → this process's memory → the table of all.

    from orm_app import slow
    slow.every(order="total"), slow.clear()        what was found
    with slow.no_n_plus_one(): ...                 in a test
    with slow.ignored(): ...                       statements that are meant to be slow

Lazy: models cannot be imported before the app registry is ready, and this package is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .capture import ignored as ignored
    from .finding import families as families
    from .flusher import flush as flush
    from .repeats import no_n_plus_one as no_n_plus_one
    from .stored import clear as clear
    from .stored import every as every
    from .stored import get as get

_HOMES = {
    "clear": "stored",
    "every": "stored",
    "families": "finding",
    "flush": "flusher",
    "get": "stored",
    "ignored": "capture",
    "no_n_plus_one": "repeats",
}
__all__ = ["clear", "every", "families", "flush", "get", "ignored", "no_n_plus_one"]


def __getattr__(name: str) -> Any:  # PEP 562
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
