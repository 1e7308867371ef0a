"""A read whose replica is lost on the way is asked again, once, from the primary."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from django.db import InterfaceError, OperationalError, connections
from django.db.models.query import QuerySet

from . import losses, mongo, replicas, work
from .topology import topology

T = TypeVar("T")


def read(queryset: QuerySet, ask: Callable[[QuerySet], T]) -> T:
    """ask(queryset), which only reads. An alias that was named is the only one that is asked."""
    known = topology()
    if known.dedicated and mongo.is_on(queryset.db):
        with mongo.errors_as_djangos():
            return ask(queryset)
    if not known.replicas or queryset._db is not None:
        return ask(queryset)
    alias = queryset.db
    primary = known.primaries.get(alias)
    if primary is None:
        return ask(queryset)
    try:
        return ask(queryset.using(alias))
    except (OperationalError, InterfaceError) as error:
        if losses.is_loss(error):
            replicas.failed(alias, losses.line(alias, error))
            connections[alias].close()
        elif not losses.is_conflict(error):
            raise
    _never_go_back(primary)
    return ask(queryset.using(primary))


def _never_go_back(primary: str) -> None:
    """What is read from the primary now, the replicas of the unit's later reads must have."""
    unit = work.current()
    if unit is not None:
        unit.sources.pop(primary, None)
        unit.read_from_primary[primary] = monotonic()
