"""What there is to look at in MySQL and MariaDB. Each look gets a cursor that is bounded in time and rolled back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .checkup_findings import BAD, OK, WARN, Finding, above, below
from .limited import rows

_BIGGEST = 10
# The last value of each type that AUTO_INCREMENT takes; unsigned ones reach twice as far.
_LAST = {
    "tinyint": 127,
    "smallint": 32_767,
    "mediumint": 8_388_607,
    "int": 2_147_483_647,
    "bigint": 2**63 - 1,
}


def connections(cursor: Any) -> Iterator[Finding]:
    used = int(_variable(cursor, "Threads_connected", "STATUS"))
    cursor.execute(
        "SELECT IF(@@max_user_connections > 0, LEAST(@@max_user_connections, @@max_connections), @@max_connections)"
    )
    room = max(1, int(cursor.fetchone()[0]))
    hint = "Lower the pools, raise max_connections, or put a proxy in front."
    yield above(
        "connections", used / room, f"{used} of {room} connections are used", hint, warn=0.8, bad=0.95
    )


def transactions(cursor: Any) -> Iterator[Finding]:
    cursor.execute(
        "SELECT COALESCE(MAX(TIMESTAMPDIFF(SECOND, trx_started,"
        " CONVERT_TZ(UTC_TIMESTAMP(), '+00:00', 'SYSTEM'))), 0) FROM information_schema.INNODB_TRX"
        " WHERE trx_mysql_thread_id <> CONNECTION_ID()"
    )
    longest = max(0.0, float(cursor.fetchone()[0]))
    hint = "It keeps old rows from being cleaned up and may hold locks: see `database locks`."
    yield above(
        "longest_transaction",
        longest,
        f"the longest transaction is {longest:.0f} s old",
        hint,
        warn=300,
        bad=3600,
    )


def buffer_pool(cursor: Any) -> Iterator[Finding]:
    asked = int(_variable(cursor, "Innodb_buffer_pool_read_requests", "STATUS"))
    read = int(_variable(cursor, "Innodb_buffer_pool_reads", "STATUS"))
    if asked < 100_000:
        yield Finding("buffer_pool", OK, "too few reads to say how many come from memory")
        return
    ratio = 1 - read / asked
    hint = "Raise innodb_buffer_pool_size, or look at `database slow` for scans."
    yield below("buffer_pool", ratio, f"{ratio:.1%} of the pages read came from memory", hint, warn=0.95)


def replication(cursor: Any) -> Iterator[Finding]:
    """Of this server, where it is a replica itself."""
    found = rows(cursor, "SHOW SLAVE STATUS" if _is_mariadb(cursor) else "SHOW REPLICA STATUS")
    for row in found:
        lag = row.get("seconds_behind_master", row.get("seconds_behind_source"))
        if lag is None:
            yield Finding(
                "replication", BAD, "this replica does not replicate", "Look at SHOW REPLICA STATUS."
            )
        else:
            hint = "Its reads are that old."
            yield above("replication", float(lag), f"this replica is {lag} s behind", hint, warn=30, bad=600)


def auto_increments(cursor: Any) -> Iterator[Finding]:
    found = rows(
        cursor,
        "SELECT t.TABLE_NAME AS name, t.AUTO_INCREMENT AS next, c.DATA_TYPE AS type, c.COLUMN_TYPE AS whole"
        " FROM information_schema.TABLES t JOIN information_schema.COLUMNS c ON c.TABLE_SCHEMA = t.TABLE_SCHEMA"
        " AND c.TABLE_NAME = t.TABLE_NAME AND c.EXTRA LIKE '%%auto_increment%%'"
        " WHERE t.TABLE_SCHEMA = DATABASE() AND t.AUTO_INCREMENT IS NOT NULL".replace("%%", "%"),
    )
    parts = sorted(((_part(row), row["name"]) for row in found), reverse=True)
    near = [(part, name) for part, name in parts if part >= 0.7]
    if not near:
        most = parts[0][0] if parts else 0.0
        yield Finding(
            "auto_increments", OK, f"no key is near its end (the fullest is at {most:.1%})", value=most
        )
    for part, name in near[:3]:
        level = BAD if part >= 0.9 else WARN
        yield Finding(
            "auto_increments",
            level,
            f"{name} is at {part:.0%} of its key's type",
            "Make the key a bigint.",
            part,
        )


def engines(cursor: Any) -> Iterator[Finding]:
    found = rows(
        cursor,
        "SELECT TABLE_NAME AS name, ENGINE AS engine FROM information_schema.TABLES"
        " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'BASE TABLE' AND ENGINE <> 'InnoDB'",
    )
    if not found:
        yield Finding("engines", OK, "every table is transactional (InnoDB)", value=0)
        return
    names = ", ".join(f"{row['name']} ({row['engine']})" for row in found[:5])
    yield Finding(
        "engines", WARN, f"{names}: no transactions there", "ALTER TABLE … ENGINE = InnoDB.", len(found)
    )


def sizes(cursor: Any) -> tuple[int, list[tuple[str, int | None, int]]]:
    found = rows(
        cursor,
        "SELECT TABLE_NAME AS name, TABLE_ROWS AS n, DATA_LENGTH + INDEX_LENGTH AS size FROM information_schema.TABLES"
        " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'BASE TABLE' ORDER BY size DESC",
    )
    tables = [(row["name"], row["n"], int(row["size"] or 0)) for row in found]
    return sum(size for _, _, size in tables), tables[:_BIGGEST]


def _part(row: dict[str, Any]) -> float:
    last = _LAST.get(str(row["type"]).lower(), 2**63 - 1)
    return float(row["next"] - 1) / (last * 2 if "unsigned" in str(row["whole"]) else last)


def _is_mariadb(cursor: Any) -> bool:
    cursor.execute("SELECT VERSION()")
    return "mariadb" in str(cursor.fetchone()[0]).lower()


def _variable(cursor: Any, name: str, kind: str) -> str:
    cursor.execute(f"SHOW GLOBAL {kind} LIKE %s", [name])
    found = cursor.fetchone()
    return str(found[1]) if found else "0"


LOOKS = (connections, transactions, buffer_pool, replication, auto_increments, engines)
