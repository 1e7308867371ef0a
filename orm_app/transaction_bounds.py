"""What bounds a transaction: its isolation level, and its time, in each engine's own words; restored afterwards."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.db import DatabaseError, NotSupportedError, OperationalError, connections

# Weakest first. SQLite has one writer and reads a snapshot: whatever is asked for, it is serializable.
LEVELS = ("read uncommitted", "read committed", "repeatable read", "serializable")
_SLACK_S = 0.005  # an engine's clock against ours
_STALE = 0.1  # a statement's limit is set anew when this share of it has passed
_PROGRESS_STEPS = 10_000  # of SQLite's machine between two looks at the clock, well under a millisecond
_TIMEOUTS: set[object] = {
    "57014",
    "55P03",
    1205,
    1317,
    1969,
    3024,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_BUSY,
}

Clock = Callable[[], float]


class TransactionTimeout(OperationalError):
    """The transaction did not end within its timeout_s, and was rolled back."""


def check(isolation: str | None, timeout_s: float | None) -> str | None:
    """The level as it is written in LEVELS. Raises ValueError."""
    if timeout_s is not None and not timeout_s > 0:
        raise ValueError(f"timeout_s is a number of seconds above 0, not {timeout_s!r}")
    if isolation is None:
        return None
    level = " ".join(isolation.lower().replace("_", " ").split())
    if level not in LEVELS:
        raise ValueError(f"unknown isolation {isolation!r}: use {', '.join(LEVELS)}")
    return level


class Bounds:
    """Of one block, in the block's thread. deadline: by `clock`; None: no limit."""

    def __init__(
        self, alias: str, isolation: str | None, deadline: float | None, clock: Clock = time.monotonic
    ) -> None:
        self._connection: Any = connections[alias]
        self._isolation = isolation
        self._clock = clock
        self._deadline = deadline
        self._limit: _Limit | None = None
        self._outer: Bounds | None = None

    def before(self) -> None:
        """Before BEGIN. Raises RuntimeError when a block around this one has a weaker isolation."""
        if self._isolation is None and self._deadline is None:
            return
        if self._connection.vendor == "mongodb":
            raise NotSupportedError(
                "MongoDB takes no isolation and no timeout_s: every transaction there sees one snapshot, and the URL's "
                "?timeoutMS= bounds each call"
            )
        if self._isolation is not None and self._connection.in_atomic_block:
            self._check_outer_isolation()
        if self._deadline is not None:
            self._outer = getattr(self._connection, "_brain_bounds", None)
            if self._outer is not None and self._outer._deadline is not None:
                self._deadline = min(self._deadline, self._outer._deadline)
            self._refuse_late()
            self._limit = _limit(self._connection, self._clock, self._deadline)
            self._limit.before(self._left_s())

    def begun(self, *, is_outermost: bool) -> None:
        if is_outermost:
            self._connection._brain_isolation = self._isolation
            if self._isolation is not None and self._connection.vendor != "sqlite":
                with self._connection.cursor() as cursor:
                    cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {self._isolation.upper()}")
        if self._limit is not None:
            self._limit.set(self._left_s())
            self._connection._brain_bounds = self
            self._connection.execute_wrappers.append(self._bounded)

    def ending(self) -> None:
        """Before COMMIT or ROLLBACK, which nothing may cut."""
        if self._limit is not None and self._bounded in self._connection.execute_wrappers:
            self._connection.execute_wrappers.remove(self._bounded)
            self._connection._brain_bounds = self._outer
            self._limit.ending()

    def ended(self) -> None:
        """After it. A connection that cannot be restored is closed: nobody else may inherit its limits."""
        if not self._connection.in_atomic_block:
            self._connection._brain_isolation = None
        if self._limit is None:
            return
        try:
            self._limit.restore()
            if self._outer is not None and self._outer._limit is not None:
                self._outer._limit.set(self._outer._left_s())
        except DatabaseError:
            if not self._connection.in_atomic_block:
                self._connection.close()

    @property
    def is_late(self) -> bool:
        return self._deadline is not None and self._left_s() <= 0

    def timeout(self) -> TransactionTimeout:
        return TransactionTimeout("the transaction did not end within its timeout_s")

    def translated(self, error: BaseException) -> BaseException:
        """TransactionTimeout when it was our limit that broke the statement, else the error."""
        if self._deadline is None or self._left_s() > _SLACK_S or _code(error) not in _TIMEOUTS:
            return error
        return self.timeout()

    def _bounded(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self._refuse_late()
        assert self._limit is not None  # noqa: S101  (for mypy)
        if not self._connection.needs_rollback:
            self._limit.tighten(self._left_s())
        try:
            return execute(sql, params, many, context)
        except DatabaseError as error:
            translated = self.translated(error)
            if translated is error:
                raise
            raise translated from error

    def _left_s(self) -> float:
        return math.inf if self._deadline is None else self._deadline - self._clock()

    def _refuse_late(self) -> None:
        if self.is_late:
            raise self.timeout()

    def _check_outer_isolation(self) -> None:
        if all(block._from_testcase for block in self._connection.atomic_blocks):
            return  # a test's own transaction stands in for none
        outer = getattr(self._connection, "_brain_isolation", None)
        if self._connection.vendor == "sqlite":
            return
        if outer is None or LEVELS.index(outer) < LEVELS.index(str(self._isolation)):
            raise RuntimeError(
                f"isolation={self._isolation!r} inside a transaction that is {outer or 'the default level'}: "
                "the outermost block chooses it"
            )


class _Limit:
    """A time limit of the engine's for each statement, its waiting for locks included."""

    def __init__(self, connection: Any, clock: Clock, deadline: float) -> None:
        self._connection = connection
        self._clock = clock
        self._deadline = deadline
        self._set_s = math.inf

    def before(self, left_s: float) -> None: ...

    def set(self, left_s: float) -> None:
        self._set_s = left_s
        self._apply(max(left_s, 0.001))

    def tighten(self, left_s: float) -> None:
        if left_s < self._set_s * (1 - _STALE):
            self.set(left_s)

    def ending(self) -> None: ...

    def restore(self) -> None: ...

    def _apply(self, left_s: float) -> None: ...

    def _ask(self, sql: str, params: tuple[Any, ...] = ()) -> Any:
        """Past the wrappers, which would ask again."""
        with self._connection.wrap_database_errors, self._connection.connection.cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.fetchone() if cursor.description else None


class _PostgreSQL(_Limit):
    """SET LOCAL ends with the transaction; a savepoint that is released keeps it, so that one is set back."""

    _own_ms: int | None = None  # of the session; 0: none

    def _apply(self, left_s: float) -> None:
        if self._own_ms is None:
            self._own_ms = self._ask(
                "SELECT (extract(epoch FROM current_setting('statement_timeout')::interval) * 1000)::bigint"
            )[0]
        ms = max(1, math.ceil(left_s * 1000))
        self._local(min(ms, self._own_ms or ms))

    def restore(self) -> None:
        if (
            self._connection.in_atomic_block
            and not self._connection.needs_rollback
            and self._own_ms is not None
        ):
            self._local(self._own_ms)

    def _local(self, ms: int) -> None:
        self._ask("SELECT set_config('statement_timeout', %s, true)", (str(ms),))


class _MySQL(_Limit):
    """MariaDB bounds every statement, MySQL a SELECT; both bound the wait for a row's lock, in whole seconds."""

    _before: tuple[Any, ...] | None = None

    def before(self, left_s: float) -> None:
        self._connection.ensure_connection()
        self._name = "max_statement_time" if self._connection.mysql_is_mariadb else "max_execution_time"
        self._before = self._ask(f"SELECT @@SESSION.innodb_lock_wait_timeout, @@SESSION.{self._name}")

    def _apply(self, left_s: float) -> None:
        lock_s, statement = self._before or (50, 0)
        ours = left_s if self._connection.mysql_is_mariadb else math.ceil(left_s * 1000)
        self._session(min(lock_s, max(1, math.ceil(left_s))), min(ours, statement or ours))

    def ending(self) -> None:
        """Not later: the session's limits would hold for what runs on_commit too."""
        with suppress(DatabaseError):
            self.restore()

    def restore(self) -> None:
        if self._before is not None:
            self._session(*self._before)
            self._before = None

    def _session(self, lock_s: Any, statement: Any) -> None:
        self._ask(
            f"SET SESSION innodb_lock_wait_timeout = %s, SESSION {self._name} = %s", (lock_s, statement)
        )


class _SQLite(_Limit):
    """The wait for the write lock is bounded at BEGIN; a statement is interrupted by SQLite's own look at our clock."""

    _timeout_ms: int | None = None
    _own_timeout_s: float | None = None

    def before(self, left_s: float) -> None:
        self._connection.ensure_connection()
        self._timeout_ms = self._raw.execute("PRAGMA busy_timeout").fetchone()[0]
        self._own_timeout_s = getattr(self._connection, "_timeout_s", None)  # of orm_app.sqlite
        if self._own_timeout_s is not None:
            self._connection._timeout_s = min(self._own_timeout_s, left_s)
        self._raw.execute(f"PRAGMA busy_timeout = {min(self._timeout_ms or 0, math.ceil(left_s * 1000))}")

    def set(self, left_s: float) -> None:
        self._raw.set_progress_handler(lambda: self._clock() >= self._deadline, _PROGRESS_STEPS)

    def tighten(self, left_s: float) -> None: ...

    def ending(self) -> None:
        if self._connection.connection is not None:
            self._raw.set_progress_handler(None, 0)

    def restore(self) -> None:
        if self._connection.connection is None:
            return
        if self._own_timeout_s is not None:
            self._connection._timeout_s = self._own_timeout_s
        self._raw.execute(f"PRAGMA busy_timeout = {self._timeout_ms or 0}")

    @property
    def _raw(self) -> Any:
        return self._connection.connection


def _limit(connection: Any, clock: Clock, deadline: float) -> _Limit:
    kinds = {"postgresql": _PostgreSQL, "mysql": _MySQL, "sqlite": _SQLite}
    return kinds.get(connection.vendor, _Limit)(connection, clock, deadline)


def _code(error: BaseException) -> object:
    cause: Any = error.__cause__ or error
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF
    return getattr(cause, "sqlstate", None) or (cause.args[0] if cause.args else None)
