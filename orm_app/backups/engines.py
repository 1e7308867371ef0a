"""Which module dumps, checks and replaces which engine."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from django.db import connections

from . import mysql, postgresql, sqlite
from .manifest import BackupFailed

_MODULES: dict[str, ModuleType] = {"postgresql": postgresql, "mysql": mysql, "sqlite": sqlite}


def of(connection: Any) -> ModuleType:
    """Raises BackupFailed."""
    try:
        return _MODULES[connection.vendor]
    except KeyError:
        raise BackupFailed(
            f"no backup of {connection.display_name} is made here",
            "Use its own tool: mongodump --oplog --gzip --archive=FILE."
            if connection.vendor == "mongodb"
            else "",
        ) from None


def connection(alias: str) -> Any:
    """Raises BackupFailed."""
    if alias not in connections:
        raise BackupFailed(f"there is no database {alias!r}", f"There are {', '.join(connections)}.")
    return connections[alias]
