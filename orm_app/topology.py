"""The topology of this process's settings."""

from __future__ import annotations

from typing import Any

from django.db import connections

from . import routing
from .conf import DatabaseConf, conf

_Key = tuple[object, tuple[str, ...], DatabaseConf]
_known: tuple[_Key, routing.Topology] | None = None


def topology() -> routing.Topology:
    """Worked out again when the settings are others, or an alias came or went (in tests)."""
    global _known
    databases, chosen = connections.settings, conf()
    key = databases, tuple(databases), chosen
    if _known is None or not _is_same(_known[0], key):
        _known = key, routing.topology(databases, chosen.APPS)
    return _known[1]


def mirror(entry: dict[str, Any]) -> None:
    """Of DATABASES: its replica is its primary's mirror from now on. A test names the databases that it uses, and a
    standby would answer it with what was there before the test's last write."""
    global _known
    entry[routing.MIRRORED] = True
    _known = None


def _is_same(one: _Key, other: _Key) -> bool:
    return one[0] is other[0] and one[1] == other[1] and one[2] is other[2]
