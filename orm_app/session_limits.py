"""A time limit for every statement of this thread's connection, its waiting for locks included, while the block runs.

Unlike `transaction_bounds` it needs no transaction, so that what asks many things may fail in one of them. It is set by
the first statement: a database that is away is not waited for here. Whoever gets the connection next has its own limits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.db import Error, connections


@contextmanager
def limited(alias: str, limit_s: float) -> Iterator[None]:
    connection: Any = connections[alias]
    kind = _KINDS.get(connection.vendor)
    if kind is None:
        yield
        return
    limit = kind(connection, limit_s)
    with connection.execute_wrapper(limit):
        try:
            yield
        finally:
            limit.take_back()


class _Limit:
    def __init__(self, connection: Any, limit_s: float) -> None:
        self._connection, self._limit_s = connection, limit_s
        self._raw: Any = None  # the driver's connection that has it
        self._is_setting = False

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raw = self._connection.connection
        # A setting that is made in a transaction goes with its rollback; `limited.cursor` bounds those.
        if raw is not self._raw and not self._connection.in_atomic_block and not self._is_setting:
            self._is_setting = True  # Django asks MySQL for its version through here
            try:
                self._set()
            finally:
                self._is_setting = False
            self._raw = raw
        return execute(sql, params, many, context)

    def take_back(self) -> None:
        """A connection that cannot be set back is closed: nobody else may inherit the limit."""
        if self._raw is None or self._connection.connection is not self._raw:
            return
        try:
            self._reset()
        except Error:
            with suppress(Error):
                self._raw.close()

    def _set(self) -> None:
        raise NotImplementedError

    def _reset(self) -> None:
        raise NotImplementedError

    def _ask(self, sql: str, params: tuple[Any, ...] = ()) -> Any:
        """Past the wrappers: this is one, and the pool's marks a session as changed."""
        with self._connection.wrap_database_errors, self._connection.connection.cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.fetchone() if cursor.description else None


class _PostgreSQL(_Limit):
    def _set(self) -> None:
        ms = math.ceil(self._limit_s * 1000)
        self._was: str = self._ask("SELECT current_setting('statement_timeout')")[0]
        self._ask("SELECT set_config('statement_timeout', %s, false)", (str(ms),))

    def _reset(self) -> None:
        self._ask("SELECT set_config('statement_timeout', %s, false)", (self._was,))


class _MySQL(_Limit):
    """lock_wait_timeout is the wait for a table that somebody alters: a day by default."""

    def _set(self) -> None:
        is_mariadb = self._connection.mysql_is_mariadb
        self._name = "max_statement_time" if is_mariadb else "max_execution_time"  # seconds; milliseconds
        self._was = self._ask(f"SELECT @@SESSION.lock_wait_timeout, @@SESSION.{self._name}")
        statement = self._limit_s if is_mariadb else math.ceil(self._limit_s * 1000)
        self._apply(max(1, math.ceil(self._limit_s)), statement)

    def _reset(self) -> None:
        self._apply(*self._was)

    def _apply(self, lock_s: Any, statement: Any) -> None:
        self._ask(f"SET SESSION lock_wait_timeout = %s, SESSION {self._name} = %s", (lock_s, statement))


_KINDS: dict[str, type[_Limit]] = {"postgresql": _PostgreSQL, "mysql": _MySQL}
