"""The topology of this process's settings."""

from __future__ import annotations

from typing import Any

from django.db import connections

from . import routing
from .conf import DatabaseConf, conf

_known: tuple[object, tuple[str, ...], DatabaseConf, routing.Topology] | None = None


def topology() -> routing.Topology:
    """Worked out again when the settings are others, or an alias came or went (in tests)."""
    global _known
    databases, chosen, names = connections.settings, conf(), tuple(connections.settings)
    known = _known  # asked for each query, several times
    if known is None or not (known[0] is databases and known[1] == names and known[2] is chosen):
        known = _known = databases, names, chosen, routing.topology(databases, chosen.APPS)
    return known[3]


def mirror(entry: dict[str, Any]) -> None:
    """Of DATABASES: its replica is its primary's mirror from now on. A test names the databases that it uses, and a
    standby would answer it with what was there before the test's last write."""
    global _known
    entry[routing.MIRRORED] = True
    _known = None
