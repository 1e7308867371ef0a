"""How the engine runs a statement: `explain.of("default", "SELECT …")`, in its own words and with warnings in ours.

The statement runs only with analyze=True, in a transaction that is rolled back. Everything is bounded in time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import DatabaseError, connections
from django.db.models.query import QuerySet

from . import limited, plan_reading
from .plan_reading import Step
from .query import Query
from .sql_statements import BadScript, split, without_comments
from .transaction_bounds import TransactionTimeout

_EXPLAINED = {"SELECT", "WITH", "VALUES", "TABLE", "INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE"}
_FIRST_WORD = re.compile(r"[\s(]*([A-Za-z]+)")
_TIMEOUT_S = 10.0


class CannotExplain(ValueError):
    """The message says why, in a line."""


@dataclass(frozen=True, slots=True)
class Plan:
    """text: as the engine writes it. steps: the same, line by line. took_ms: of explaining, with analyze of running too."""

    alias: str
    engine: str
    text: str
    steps: list[Step]
    warnings: list[str]
    is_analyzed: bool
    took_ms: float


def of(
    alias: str, query: Any, params: Any = None, *, analyze: bool = False, timeout_s: float = _TIMEOUT_S
) -> Plan:
    """query: one statement as text, with params for its `%s`; a QuerySet; or a `db.query(…)`.

    Raises CannotExplain, and Django's database errors: what the engine says about the statement.
    """
    connection: Any = connections[alias]
    if connection.vendor not in _ENGINES:
        return _of_queryset(alias, query, analyze=analyze)
    sql, given = _statement(alias, query, params)
    word = _checked(sql, connection.vendor)
    if analyze and connection.vendor == "sqlite":
        raise CannotExplain("SQLite cannot analyze: leave --analyze out")
    began = perf_counter()
    try:
        with limited.cursor(alias, timeout_s) as cursor:
            text, steps, warnings = _ENGINES[connection.vendor](connection, cursor, sql, given, word, analyze)
    except TransactionTimeout as error:
        raise CannotExplain(f"it did not end within {timeout_s:g} s") from error
    took_ms = round((perf_counter() - began) * 1000, 2)
    return Plan(alias, connection.vendor, text, steps, warnings, analyze, took_ms)


def of_slow(fingerprint: str) -> Plan:
    """The plan from when the statement was slow, its values masked. Raises CannotExplain when none is stored."""
    from .slow import stored

    row = stored.get(fingerprint)
    if row is None:
        raise CannotExplain(f"no slow statement {fingerprint!r}")
    if not row.plan:
        raise CannotExplain("no plan was stored with it: it was not slow again since, or cannot be explained")
    vendor = connections[row.alias].vendor if row.alias in connections.settings else ""
    steps = plan_reading.steps_of_postgresql(row.plan) if vendor == "postgresql" else _lines(row.plan)
    warnings = plan_reading.warnings_of_postgresql(row.plan, {}) if vendor == "postgresql" else []
    return Plan(row.alias, vendor, row.plan, steps, warnings, is_analyzed=False, took_ms=0.0)


def _statement(alias: str, query: Any, params: Any) -> tuple[str, Any]:
    if isinstance(query, str):
        return query, params
    queryset = query.queryset if isinstance(query, Query) else query
    if not isinstance(queryset, QuerySet):
        raise CannotExplain(f"SQL text, a QuerySet or a db.query(…), not {type(query).__name__}")
    try:
        sql, given = queryset.query.get_compiler(alias).as_sql()
    except EmptyResultSet:
        raise CannotExplain("Django sends nothing for it: its conditions leave no row") from None
    return sql, tuple(given)


def _checked(sql: str, vendor: str) -> str:
    """The statement's verb. A second statement would run, whatever stands before the first."""
    try:
        statements = split(sql, vendor)
        words = [without_comments(one, vendor) for one in statements]
    except BadScript as error:
        raise CannotExplain(str(error)) from error
    if len(words) != 1:
        raise CannotExplain(f"one statement, not {len(words)}")
    match = _FIRST_WORD.match(words[0])
    word = match[1].upper() if match else ""
    if word not in _EXPLAINED:
        raise CannotExplain(f"there is no plan of {word or 'this'}: only of {', '.join(sorted(_EXPLAINED))}")
    return word


def _postgresql(
    connection: Any, cursor: Any, sql: str, params: Any, word: str, analyze: bool
) -> tuple[str, list[Step], list[str]]:
    options = "ANALYZE, BUFFERS" if analyze else "COSTS"
    cursor.execute(f"EXPLAIN ({options}) {sql}", params)
    text = "\n".join(row[0] for row in cursor.fetchall())
    tables = plan_reading.scanned_tables(text.splitlines())
    sizes = _sizes_of_postgresql(cursor, tables) if tables else {}
    return text, plan_reading.steps_of_postgresql(text), plan_reading.warnings_of_postgresql(text, sizes)


def _sizes_of_postgresql(cursor: Any, tables: set[str]) -> dict[str, float]:
    sql = "SELECT relname, max(reltuples) FROM pg_class WHERE relname = ANY(%s) AND relkind IN ('r', 'p', 'm') GROUP BY 1"
    cursor.execute(sql, (list(tables),))
    return dict(cursor.fetchall())


def _mysql(
    connection: Any, cursor: Any, sql: str, params: Any, word: str, analyze: bool
) -> tuple[str, list[Step], list[str]]:
    if analyze and not connection.mysql_is_mariadb:
        cursor.execute(f"EXPLAIN ANALYZE {sql}", params)  # a tree as one text
        text = "\n".join(str(row[0]) for row in cursor.fetchall())
        return text, _lines(text), []
    found = limited.rows(cursor, f"{'ANALYZE' if analyze else 'EXPLAIN'} {sql}", params)
    return (
        plan_reading.table_text(found),
        plan_reading.steps_of_mysql(found),
        plan_reading.warnings_of_mysql(found),
    )


def _sqlite(
    connection: Any, cursor: Any, sql: str, params: Any, word: str, analyze: bool
) -> tuple[str, list[Step], list[str]]:
    found = limited.rows(cursor, f"EXPLAIN QUERY PLAN {sql}", params)
    steps = plan_reading.steps_of_sqlite(found)
    tables = plan_reading.read_tables(steps)
    sizes = {table: _size_of_sqlite(connection, cursor, table) for table in tables}
    return plan_reading.steps_text(steps), steps, plan_reading.warnings_of_sqlite(steps, sizes)


def _size_of_sqlite(connection: Any, cursor: Any, table: str) -> float:
    """By the last key, which SQLite knows at once."""
    try:
        cursor.execute(f"SELECT max(rowid) FROM {connection.ops.quote_name(table)}")  # noqa: S608
        return float(cursor.fetchone()[0] or 0)
    except (DatabaseError, TypeError, ValueError):
        return 0.0  # an alias, a view or a table without rowid


def _of_queryset(alias: str, query: Any, *, analyze: bool) -> Plan:
    """Another engine's, MongoDB's say: what its backend gives."""
    queryset = query.queryset if isinstance(query, Query) else query
    if not isinstance(queryset, QuerySet):
        raise CannotExplain(f"on {connections[alias].vendor} only queries of models have a plan")
    if analyze:
        raise CannotExplain(f"on {connections[alias].vendor} nothing is analyzed")
    began = perf_counter()
    text = str(queryset.using(alias).explain())
    took_ms = round((perf_counter() - began) * 1000, 2)
    return Plan(alias, connections[alias].vendor, text, _lines(text), [], is_analyzed=False, took_ms=took_ms)


def _lines(text: str) -> list[Step]:
    return [
        Step((len(line) - len(line.lstrip())) // 2, line.strip())
        for line in text.splitlines()
        if line.strip()
    ]


_ENGINES = {"postgresql": _postgresql, "mysql": _mysql, "sqlite": _sqlite}
