"""What the kit puts into the place of something else for the length of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

_NONE = object()


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name` is `value` in the block, and then what it was: inherited again, where it was that."""
    before = vars(owner).get(name, _NONE)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is _NONE:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


@contextmanager
def statements_through(wrapper: Callable[..., Any], alias: str | None = None) -> Iterator[None]:
    """Each statement goes through `wrapper`, one of Django's `execute_wrapper`: of this thread's connections, and of those
    that any thread makes in the block. alias: of this database alone.
    """
    wrapped: list[BaseDatabaseWrapper] = []

    def wrap(connection: BaseDatabaseWrapper, **_: object) -> None:
        if alias in (None, connection.alias) and wrapper not in connection.execute_wrappers:
            connection.execute_wrappers.append(wrapper)
            wrapped.append(connection)

    connection_created.connect(wrap, weak=False)
    for known in connections.all():
        wrap(known)
    try:
        yield
    finally:
        connection_created.disconnect(wrap)
        for connection in wrapped:
            connection.execute_wrappers.remove(wrapper)
