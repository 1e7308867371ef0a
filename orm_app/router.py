"""DATABASE_ROUTERS = ["orm_app.router.Router"]: apps on their own databases."""

from __future__ import annotations

from typing import Any

from django.db import connections, models

from . import routing
from .conf import DatabaseConf, conf

_Key = tuple[object, tuple[str, ...], DatabaseConf]
_known: tuple[_Key, routing.Topology] | None = None


class Router:
    def db_for_read(self, model: type[models.Model], **hints: Any) -> str | None:
        return routing.cluster(topology(), model._meta.app_label, _near(hints))

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str | None:
        return routing.cluster(topology(), model._meta.app_label, _near(hints))

    def allow_relation(self, one: models.Model, other: models.Model, **hints: Any) -> bool | None:
        return routing.may_relate(topology(), one._state.db, other._state.db)

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return routing.may_migrate(topology(), db, app_label)


def topology() -> routing.Topology:
    """Worked out again when the settings are others, or an alias came or went (in tests)."""
    global _known
    databases, chosen = connections.settings, conf()
    key = databases, tuple(databases), chosen
    if _known is None or not _is_same(_known[0], key):
        _known = key, routing.topology(databases, chosen.APPS)
    return _known[1]


def _is_same(one: _Key, other: _Key) -> bool:
    return one[0] is other[0] and one[1] == other[1] and one[2] is other[2]


def _near(hints: dict[str, Any]) -> tuple[str, str] | None:
    instance = hints.get("instance")
    if instance is None or not instance._state.db:
        return None
    return instance._meta.app_label, instance._state.db
