"""The server's own statistics of statements: PostgreSQL's pg_stat_statements, MySQL's performance_schema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import DatabaseError, connections

from orm_app import limited

from . import normal

_TIMEOUT_S = 5.0
_STATEMENTS = """
SELECT query AS sql, calls AS n, total_exec_time AS total, max_exec_time AS longest, rows AS num
FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY total_exec_time DESC LIMIT %s
"""


class NotEnabled(RuntimeError):
    """The message says how to enable it."""


@dataclass(frozen=True, slots=True)
class Statement:
    """Of all clients of the server since its statistics were reset."""

    sql: str
    count: int
    total_ms: float
    mean_ms: float
    max_ms: float | None
    rows: int


def top(alias: str, limit: int = 20) -> list[Statement]:
    """Those that took most time together. Raises NotEnabled, and Django's database errors."""
    connection: Any = connections[alias]
    read = _READERS.get(connection.vendor)
    if read is None:
        raise NotEnabled(
            f"{connection.vendor} keeps no statistics of statements: `database slow` has this site's own"
        )
    with limited.cursor(alias, _TIMEOUT_S) as cursor:
        found = read(connection, cursor, limit)
    return [
        Statement(
            sql=normal.normalise(str(row["sql"] or ""), connection.vendor),
            count=int(row["n"]),
            total_ms=round(float(row["total"]), 3),
            mean_ms=round(float(row["total"]) / max(1, int(row["n"])), 3),
            max_ms=None if row["longest"] is None else round(float(row["longest"]), 3),
            rows=int(row["num"] or 0),
        )
        for row in found
    ]


def _postgresql(connection: Any, cursor: Any, limit: int) -> list[dict[str, Any]]:
    hint = (
        "pg_stat_statements is not enabled: put it into shared_preload_libraries, restart the server, then "
        "CREATE EXTENSION pg_stat_statements"
    )
    cursor.execute("SELECT 1 FROM pg_extension WHERE extname = 'pg_stat_statements'")
    if cursor.fetchone() is None:
        raise NotEnabled(hint)
    suffix = "exec_time" if connection.pg_version >= 13_00_00 else "time"
    try:
        return limited.rows(cursor, _STATEMENTS.replace("exec_time", suffix), [limit])
    except DatabaseError as error:
        if getattr(error.__cause__, "sqlstate", None) == "55000":  # made, but not loaded
            raise NotEnabled(hint) from error
        raise


def _mysql(connection: Any, cursor: Any, limit: int) -> list[dict[str, Any]]:
    cursor.execute("SELECT @@performance_schema")
    if not cursor.fetchone()[0]:
        raise NotEnabled("performance_schema is off: start the server with performance_schema = ON")
    return limited.rows(
        cursor,
        "SELECT DIGEST_TEXT AS `sql`, COUNT_STAR AS n, SUM_TIMER_WAIT / 1e9 AS total,"
        " MAX_TIMER_WAIT / 1e9 AS longest, SUM_ROWS_SENT AS num"
        " FROM performance_schema.events_statements_summary_by_digest WHERE SCHEMA_NAME = DATABASE()"
        " ORDER BY SUM_TIMER_WAIT DESC LIMIT %s",
        [limit],
    )


_READERS: dict[str, Callable[[Any, Any, int], list[dict[str, Any]]]] = {
    "postgresql": _postgresql,
    "mysql": _mysql,
}
