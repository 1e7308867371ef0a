"""Whether an error says that a server is away, and not that a statement is wrong."""

from __future__ import annotations

from typing import Any

from django.db import InterfaceError, OperationalError

from . import health

# PostgreSQL: connection_exception, insufficient_resources, operator_intervention: but a statement that was cancelled.
_PG_CLASSES, _PG_STATEMENT = ("08", "53", "57"), {"57014"}
# A standby that cancels a read so that it can replay on. Only the read is lost.
_PG_CONFLICTS = {"40001", "40P01"}
# Cannot connect, gone away, lost during the query, too many connections, shutdown, killed, read timeout.
_MYSQL = {1040, 1053, 1203, 1927, 2002, 2003, 2005, 2006, 2013, 2055, 4031}


def is_loss(error: BaseException) -> bool:
    """The connection, or the server, is gone."""
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    cause: Any = error.__cause__ or error
    if type(cause).__module__.startswith("MySQLdb"):
        return bool(cause.args) and cause.args[0] in _MYSQL
    state = getattr(cause, "sqlstate", None)
    # None: libpq or the pool says it, no server
    return state is None or (state.startswith(_PG_CLASSES) and state not in _PG_STATEMENT)


def is_conflict(error: BaseException) -> bool:
    """A standby has ended a read of its own accord: elsewhere it succeeds."""
    return getattr(error.__cause__, "sqlstate", None) in _PG_CONFLICTS


def line(alias: str, error: BaseException) -> str:
    return health.reason(alias, error)
