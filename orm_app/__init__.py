"""The database layer: builder → QuerySet → pooled connection → rows.

`from orm_app import db, Model, Field, Migration, migration_manager, User`. Lazy: models cannot be imported before the
app registry is ready, and this package is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import db as db
    from .declared import Model as Model
    from .fields import Field as Field
    from .models import User as User
    from .sql_migrations import Migration as Migration
    from .sql_migrations import migration_manager as migration_manager

_HOMES = {
    "Field": "fields",
    "Migration": "sql_migrations",
    "Model": "declared",
    "User": "models",
    "migration_manager": "sql_migrations",
}
__all__ = ["Field", "Migration", "Model", "User", "db", "migration_manager"]


def __getattr__(name: str) -> Any:  # PEP 562
    if name == "db":
        return importlib.import_module(".db", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
