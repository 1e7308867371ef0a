"""The database layer: builder → QuerySet → pooled connection → rows.

`from orm_app import User, db`. Lazy: neither can be imported before the app registry is ready, and this package is.
"""

from __future__ import annotations

from typing import Any

__all__ = ["User", "db"]


def __getattr__(name: str) -> Any:
    if name == "db":
        from importlib import import_module

        return import_module(".db", __name__)
    if name == "User":
        from .models import User

        return User
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
