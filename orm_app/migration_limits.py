"""How long a statement of a migration may wait for a lock and run, and whether to try again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from django.db import DatabaseError

from .transactions import is_transient

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's lock_timeout


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, 0: the server's own. A waiting ALTER TABLE makes every later reader of the table wait behind it: that
    is why it gives up soon, lets them pass and tries again."""

    lock_timeout_s: float = 0.0
    statement_timeout_s: float = 0.0
    retries: int = 0


@contextmanager
def applied(connection: Any, limits: Limits) -> Iterator[None]:
    """The session's limits while the block runs."""
    wanted = _variables(connection, limits)
    before = {name: _value(connection, name) for name in wanted}
    _set(connection, wanted)
    before |= _notice_death(connection)
    try:
        yield
    finally:
        # A connection that is gone, or in a broken transaction, takes its session's values with it.
        with suppress(DatabaseError):
            if connection.connection is not None and not connection.needs_rollback:
                _set(connection, before)


def pauses_s(limits: Limits) -> Iterator[float]:
    """The pause before each further try."""
    for number in range(limits.retries):
        # Jitter: two that met once must not meet again.
        yield min(_FIRST_PAUSE_S * 2**number, _LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)  # noqa: S311


def may_pass(error: BaseException) -> bool:
    """Whether the same statement may succeed a little later: a lock that was not free, a deadlock."""
    cause = error.__cause__ or error
    return getattr(cause, "sqlstate", None) == _LOCK_NOT_AVAILABLE or is_transient(error)


def _variables(connection: Any, limits: Limits) -> dict[str, Any]:
    lock_s, statement_s = limits.lock_timeout_s, limits.statement_timeout_s
    found: dict[str, Any] = {}
    if connection.vendor == "postgresql":
        if lock_s:
            found["lock_timeout"] = f"{lock_s * 1000:.0f}ms"
        if statement_s:
            found["statement_timeout"] = f"{statement_s * 1000:.0f}ms"
    if connection.vendor == "mysql":
        if lock_s:
            found |= dict.fromkeys(("lock_wait_timeout", "innodb_lock_wait_timeout"), max(1, round(lock_s)))
        if statement_s and connection.mysql_is_mariadb:  # MySQL limits SELECT alone
            found["max_statement_time"] = statement_s
    return found


def _notice_death(connection: Any) -> dict[str, Any]:
    """A killed migrate must not go on in the server, holding the lock: PostgreSQL looks whether its client is there.
    Returns the value before; nothing where the server cannot look (before 14, or on some systems)."""
    name = "client_connection_check_interval"
    if connection.vendor != "postgresql" or connection.pg_version < 140000 or connection.in_atomic_block:
        return {}
    before = _value(connection, name)
    try:
        _set(connection, {name: "2s"})
    except DatabaseError:
        return {}
    return {name: before}


def _value(connection: Any, name: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(f"SHOW {name}" if connection.vendor == "postgresql" else f"SELECT @@SESSION.{name}")
        return cursor.fetchone()[0]


def _set(connection: Any, variables: dict[str, Any]) -> None:
    with connection.cursor() as cursor:
        for name, value in variables.items():
            if connection.vendor == "postgresql":
                cursor.execute("SELECT set_config(%s, %s, false)", [name, value])
            else:
                cursor.execute(f"SET SESSION {name} = %s", [value])
