"""Questions about a database that must not hold it up: bounded in time, and nothing they do stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import Any

from django.db import connections, transaction

from .slow.capture import ignored
from .transaction_bounds import Bounds


@contextmanager
def cursor(alias: str, timeout_s: float) -> Iterator[Any]:
    """A cursor for the block, rolled back at its end. Raises TransactionTimeout (an OperationalError) after timeout_s.

    On SQLite there is no transaction: it would take the write lock.
    """
    connection: Any = connections[alias]
    bounds = Bounds(alias, None, monotonic() + timeout_s)
    with ignored(), ExitStack() as stack:
        bounds.before()
        stack.callback(bounds.ended)
        if connection.vendor != "sqlite":
            stack.enter_context(_taken_back(alias))
        bounds.begun(is_outermost=False)
        stack.callback(bounds.ending)
        yield stack.enter_context(connection.cursor())


@contextmanager
def _taken_back(alias: str) -> Iterator[None]:
    with transaction.atomic(alias):
        yield
        transaction.set_rollback(True, alias)


def rows(cursor: Any, sql: str, params: Any = None) -> list[dict[str, Any]]:
    """names in lower case: MySQL's own tables write theirs in capitals."""
    cursor.execute(sql, params)
    names = [str(column[0]).lower() for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def ask(alias: str, sql: str, params: Any = None, *, timeout_s: float) -> list[dict[str, Any]]:
    with cursor(alias, timeout_s) as opened:
        return rows(opened, sql, params)
