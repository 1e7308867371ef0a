"""What a database holds, as a manifest keeps it: rows and a checksum of each table, sequences, and names of the rest.

A checksum is the sum of a hash of each row: no order is needed, and the server does the work (SQLite: this process).
Each reader asks by a function, so that the same questions go over Django's cursor and through psql.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .files import Progress
from .manifest import Contents, Table

Ask = Callable[[str], Sequence[Sequence[Any]]]

_BITS = 60  # of a row's hash: its sum over a table fits the servers' numbers
_STEP = "checking tables"

# --- PostgreSQL ----------------------------------------------------------------------------------------------------------
# A row's text depends on these.
POSTGRESQL_SETTINGS = (
    "SET extra_float_digits = 3",
    "SET DateStyle = 'ISO, YMD'",
    "SET IntervalStyle = 'postgres'",
    "SET TimeZone = 'UTC'",
    "SET bytea_output = 'hex'",
    "SET lc_monetary = 'C'",
    "SET search_path = pg_catalog",
    "SET statement_timeout = 0",
)
_OURS = "left(n.nspname, 3) <> 'pg_' AND n.nspname <> 'information_schema'"
_NOT_AN_EXTENSION = (
    "NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid "
    "AND d.deptype = 'e')"
)
_POSTGRESQL_TABLES = (
    f"SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "  # noqa: S608
    f"WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {_OURS} AND {_NOT_AN_EXTENSION} ORDER BY 1, 2"
)
_POSTGRESQL_OTHERS = (
    "SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE 'index' END, "  # noqa: S608
    "n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    f"WHERE c.relkind IN ('v', 'm', 'i') AND {_OURS} AND {_NOT_AN_EXTENSION} "
    "UNION ALL SELECT 'trigger', n.nspname || '.' || c.relname || '.' || t.tgname FROM pg_trigger t "
    "JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
    f"WHERE NOT t.tgisinternal AND {_OURS} ORDER BY 1, 2"
)
_POSTGRESQL_SEQUENCES = (
    "SELECT schemaname || '.' || sequencename, last_value FROM pg_sequences "
    "WHERE last_value IS NOT NULL AND increment_by > 0 ORDER BY 1"
)


def postgresql_sequences(ask: Ask) -> dict[str, int]:
    return {str(name): int(value) for name, value in ask(_POSTGRESQL_SEQUENCES)}


def postgresql_counts(ask: Ask) -> list[tuple[str, str]]:
    """Each table with the statement that counts its rows."""
    names = [(str(schema), str(name)) for schema, name in ask(_POSTGRESQL_TABLES)]
    return [
        (f"{schema}.{name}", f"SELECT count(*) FROM ONLY {_quoted(schema)}.{_quoted(name)}")  # noqa: S608  (quoted)
        for schema, name in names
    ]


def postgresql(ask: Ask, progress: Progress, sequences: dict[str, int] | None = None) -> Contents:
    """sequences: read before the dump, which may have a later value and never an earlier one."""
    if sequences is None:
        sequences = postgresql_sequences(ask)
    names = [(str(schema), str(name)) for schema, name in ask(_POSTGRESQL_TABLES)]
    tables = []
    for number, (schema, name) in enumerate(names):
        progress(_STEP, number, len(names))
        [[rows, total]] = ask(_postgresql_checksum(schema, name))
        tables.append(Table(f"{schema}.{name}", int(rows), str(total)))
    others = tuple(f"{kind}:{name}" for kind, name in ask(_POSTGRESQL_OTHERS))
    return Contents(tuple(tables), sequences, others)


def _postgresql_checksum(schema: str, name: str) -> str:
    hashed = "encode(sha256(convert_to(ROW(r.*)::text, 'UTF8')), 'hex')"
    number = f"('x' || left({hashed}, {_BITS // 4}))::bit({_BITS})::bigint"
    # ONLY: the rows of a table that inherits from it are counted there.
    return (
        f"SELECT count(*), coalesce(sum({number}), 0)::text FROM ONLY {_quoted(schema)}.{_quoted(name)} AS r"  # noqa: S608
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# --- MySQL and MariaDB ---------------------------------------------------------------------------------------------------
MYSQL_SETTINGS = ("SET SESSION time_zone = '+00:00'",)
# Their text has no comma and is never the word below; anything else is hashed by itself.
_PLAIN = {
    "tinyint",
    "smallint",
    "mediumint",
    "int",
    "bigint",
    "decimal",
    "date",
    "datetime",
    "timestamp",
    "time",
    "year",
}


def mysql(ask: Ask, progress: Progress) -> Contents:
    columns: dict[str, list[str]] = {}
    for table, column, kind, extra in ask(_MYSQL_COLUMNS):
        columns.setdefault(str(table), [])
        if "AS ROW" not in str(extra).upper():  # a system-versioned table's own times are new after a restore
            columns[str(table)].append(_mysql_value(str(column), str(kind)))
    tables = []
    for number, (name, values) in enumerate(columns.items()):
        progress(_STEP, number, len(columns))
        [[rows, total]] = ask(_mysql_checksum(name, values))
        tables.append(Table(name, int(rows), str(total)))
    return Contents(tuple(tables), {}, tuple(f"{kind}:{name}" for kind, name in ask(_MYSQL_OTHERS)))


_MYSQL_COLUMNS = (
    "SELECT c.TABLE_NAME, c.COLUMN_NAME, c.DATA_TYPE, c.EXTRA FROM information_schema.COLUMNS c "
    "JOIN information_schema.TABLES t ON t.TABLE_SCHEMA = c.TABLE_SCHEMA AND t.TABLE_NAME = c.TABLE_NAME "
    "WHERE c.TABLE_SCHEMA = DATABASE() AND t.TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY c.TABLE_NAME, c.ORDINAL_POSITION"
)
_MYSQL_OTHERS = (
    "SELECT 'view', TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = DATABASE() "
    "UNION ALL SELECT 'trigger', TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE() "
    "UNION ALL SELECT LOWER(ROUTINE_TYPE), ROUTINE_NAME FROM information_schema.ROUTINES "
    "WHERE ROUTINE_SCHEMA = DATABASE() ORDER BY 1, 2"
)


def _mysql_value(column: str, kind: str) -> str:
    name = mysql_quoted(column)
    return f"IFNULL({name}, 'null')" if kind.lower() in _PLAIN else f"IFNULL(SHA2({name}, 256), 'null')"


def _mysql_checksum(table: str, values: Sequence[str]) -> str:
    hashed = f"SHA2(CONCAT_WS(',', {', '.join(values) or repr('')}), 256)"
    number = f"CAST(CONV(LEFT({hashed}, {_BITS // 4}), 16, 10) AS UNSIGNED)"
    return f"SELECT COUNT(*), CAST(IFNULL(SUM({number}), 0) AS CHAR) FROM {mysql_quoted(table)}"  # noqa: S608


def mysql_quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


# --- SQLite --------------------------------------------------------------------------------------------------------------
def sqlite(connection: sqlite3.Connection, progress: Progress) -> Contents:
    """Within the connection's own transaction, where it has one open."""
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' "
        "AND name NOT LIKE 'sqlite_stat%' ORDER BY name"
    ).fetchall()
    tables = []
    for number, (name,) in enumerate(names):
        progress(_STEP, number, len(names))
        tables.append(_sqlite_table(connection, name))
    others = connection.execute(
        "SELECT type || ':' || name FROM sqlite_master WHERE type <> 'table' AND name NOT LIKE 'sqlite_%' ORDER BY 1"
    )
    return Contents(tuple(tables), {}, tuple(name for (name,) in others))


def _sqlite_table(connection: sqlite3.Connection, name: str) -> Table:
    rows = total = 0
    for row in _sqlite_rows(connection, name):
        # repr tells 1, 1.0, '1' and b'1' apart, and writes a float so that it comes back as it was.
        hashed = hashlib.blake2b(repr(row).encode(), digest_size=8).digest()
        total += int.from_bytes(hashed) >> (64 - _BITS)
        rows += 1
    return Table(name, rows, str(total))


def _sqlite_rows(connection: sqlite3.Connection, name: str) -> Iterator[Any]:
    was = connection.text_factory
    connection.text_factory = _text  # SQLite stores what it is given, and not all of it is UTF-8
    try:
        yield from connection.execute(f"SELECT * FROM {_quoted(name)}")  # noqa: S608  (quoted)
    finally:
        connection.text_factory = was


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def asking(connection: Any) -> Ask:
    """Over Django's cursor."""

    def ask(sql: str) -> Sequence[Sequence[Any]]:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            rows: Sequence[Sequence[Any]] = cursor.fetchall()
            return rows

    return ask
