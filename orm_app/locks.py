"""Who waits for whom, who has been at it for long, and how to end one of them: `locks.every("default")`.

Statements are shown without their values. A session is only ended where it belongs to this database and is not ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import DatabaseError, connections

from foundation import audit

from . import limited, locks_sqlite
from .slow.normal import normalise

LONG_S = 60.0  # a transaction that is worth a look
IDLE_S = 10.0  # in a transaction: it holds its locks and does nothing
_TIMEOUT_S = 3.0
_SHOWN_SQL = 500


class NoSuchSession(LookupError):
    """The message says which, and why it is not one to end."""


@dataclass(frozen=True, slots=True)
class Session:
    """state: "waiting", "active", "idle in transaction" or "idle". waits_for: mode and table, no values."""

    id: int
    user: str
    application: str
    client: str
    state: str
    sql: str  # normalised; of one that is idle the last
    waits_for: str
    blocked_by: tuple[int, ...]
    waiting_s: float | None
    statement_s: float | None
    transaction_s: float | None
    is_ours: bool
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Locks:
    """sessions: whoever waits, is waited for, or is long in a transaction; the longest wait first. notes: what cannot
    be known here, and what stands out. facts: of the file (SQLite)."""

    alias: str
    engine: str
    sessions: list[Session]
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        return sum(1 for one in self.sessions if one.blocked_by or one.state == "waiting")

    @property
    def longest_wait_s(self) -> float:
        return max((one.waiting_s or 0.0 for one in self.sessions), default=0.0)


def every(alias: str) -> Locks:
    """Raises Django's database errors."""
    connection: Any = connections[alias]
    engine = connection.vendor
    if engine == "sqlite":
        found = locks_sqlite.of(connection)
        return Locks(alias, engine, [], found.notes, found.facts)
    if engine not in _ENGINES:
        return Locks(alias, engine, [], [f"{engine} does not say who waits for whom"])
    notes: list[str] = []
    with limited.cursor(alias, _TIMEOUT_S) as cursor:
        everyone = _ENGINES[engine](connection, cursor, notes)
    return Locks(alias, engine, _worth_a_look(everyone), notes)


def cancel(alias: str, id: int, *, actor: Any, source: str, **origin: Any) -> Session:
    """End the session's statement; its transaction fails and goes on to its ROLLBACK. Raises NoSuchSession."""
    return _end(alias, id, "cancel", actor=actor, source=source, **origin)


def end(alias: str, id: int, *, actor: Any, source: str, **origin: Any) -> Session:
    """Close the session. Raises NoSuchSession. origin: request_id and ip, as `audit.record` takes them."""
    return _end(alias, id, "end", actor=actor, source=source, **origin)


def _end(alias: str, id: int, verb: str, *, actor: Any, source: str, **origin: Any) -> Session:
    connection: Any = connections[alias]
    if connection.vendor not in _ENGINES:
        raise NoSuchSession(f"{connection.vendor} has no sessions to {verb}")
    with limited.cursor(alias, _TIMEOUT_S) as cursor:
        everyone = _ENGINES[connection.vendor](connection, cursor, [])
        found = next((one for one in everyone if one.id == id), None)
        if found is None:
            raise NoSuchSession(f"no session {id} in the database of {alias}")
        if found.is_ours:
            raise NoSuchSession(f"{id} is this session")
        _ENDINGS[connection.vendor, verb](cursor, id)
    what = {"session": id, "user": found.user, "application": found.application, "sql": found.sql}
    audit.record(
        actor=actor,
        action=f"database.session_{verb}",
        target=f"database:{alias}",
        after=what,
        source=source,
        **origin,
    )
    return found


def _end_postgresql(function: str) -> Callable[[Any, int], None]:
    def run(cursor: Any, id: int) -> None:
        cursor.execute(f"SELECT {function}(%s)", (id,))
        if not cursor.fetchone()[0]:
            raise NoSuchSession(f"session {id} has ended by itself")

    return run


def _end_mysql(statement: str) -> Callable[[Any, int], None]:
    return lambda cursor, id: cursor.execute(f"{statement} {int(id)}")


_ENDINGS: dict[tuple[str, str], Callable[[Any, int], Any]] = {
    ("postgresql", "cancel"): _end_postgresql("pg_cancel_backend"),
    ("postgresql", "end"): _end_postgresql("pg_terminate_backend"),
    ("mysql", "cancel"): _end_mysql("KILL QUERY"),
    ("mysql", "end"): _end_mysql("KILL CONNECTION"),
}


def _worth_a_look(everyone: list[Session]) -> list[Session]:
    blocking = {id for one in everyone for id in one.blocked_by}
    found = [
        one
        for one in everyone
        if one.blocked_by or one.state == "waiting" or one.id in blocking or _is_long(one)
    ]
    return sorted(found, key=lambda one: (-(one.waiting_s or 0.0), -(one.transaction_s or 0.0)))


def _is_long(one: Session) -> bool:
    if one.is_ours:
        return False
    age_s = one.transaction_s or 0.0
    return age_s >= (IDLE_S if one.state == "idle in transaction" else LONG_S)


def _session(
    row: Mapping[str, Any], engine: str, blocked_by: tuple[int, ...], blocks: tuple[int, ...]
) -> Session:
    return Session(
        id=int(row["id"]),
        user=str(row["usr"] or ""),
        application=str(row.get("application") or ""),
        client=str(row.get("client") or ""),
        state=str(row["state"]),
        sql=normalise(_text(row["query"]), engine)[:_SHOWN_SQL],
        waits_for=str(row.get("waits_for") or ""),
        blocked_by=blocked_by,
        waiting_s=_seconds(row.get("waiting_s")),
        statement_s=_seconds(row.get("statement_s")),
        transaction_s=_seconds(row.get("transaction_s")),
        is_ours=bool(row["is_ours"]),
        blocks=blocks,
    )


def _blocks(blocked_by: Mapping[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    found: dict[int, tuple[int, ...]] = {}
    for waiting, holders in blocked_by.items():
        for holder in holders:
            found[holder] = (*found.get(holder, ()), waiting)
    return found


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def _seconds(value: Any) -> float | None:
    return None if value is None else max(0.0, round(float(value), 3))


# --- PostgreSQL ------------------------------------------------------------------------------------------------------

_POSTGRESQL = """
SELECT a.pid AS id, a.usename AS usr, a.application_name AS application, host(a.client_addr) AS client,
  CASE WHEN a.wait_event_type = 'Lock' THEN 'waiting'
       WHEN a.state LIKE 'idle in transaction%' THEN 'idle in transaction'
       ELSE COALESCE(a.state, 'unknown') END AS state,
  a.query, a.pid = pg_backend_pid() AS is_ours,
  CASE WHEN a.wait_event_type = 'Lock' THEN pg_blocking_pids(a.pid) ELSE '{}' END AS blocked_by,
  CASE WHEN a.wait_event_type = 'Lock' THEN extract(epoch FROM clock_timestamp() - COALESCE(w.since, a.query_start))
       END AS waiting_s,
  CASE WHEN a.state = 'active' THEN extract(epoch FROM clock_timestamp() - a.query_start) END AS statement_s,
  extract(epoch FROM clock_timestamp() - a.xact_start) AS transaction_s, w.waits_for
FROM pg_stat_activity a
LEFT JOIN LATERAL (
  SELECT {waitstart} AS since, l.mode || ' on ' || COALESCE(l.relation::regclass::text, l.locktype) AS waits_for
  FROM pg_locks l WHERE l.pid = a.pid AND NOT l.granted LIMIT 1
) w ON true
WHERE a.datname = current_database() AND a.backend_type = 'client backend'
"""
_WAITSTART_FROM = 14_00_00


def _postgresql(connection: Any, cursor: Any, notes: list[str]) -> list[Session]:
    waitstart = "l.waitstart" if connection.pg_version >= _WAITSTART_FROM else "NULL::timestamptz"
    found = limited.rows(cursor, _POSTGRESQL.replace("{waitstart}", waitstart))
    # Workers of a parallel statement have their leader's waits, each once.
    blocked_by = {row["id"]: tuple(dict.fromkeys(row["blocked_by"])) for row in found}
    if any(0 in holders for holders in blocked_by.values()):
        notes.append("0 is a prepared transaction: look into pg_prepared_xacts")
    blocks = _blocks(blocked_by)
    return [_session(row, "postgresql", blocked_by[row["id"]], blocks.get(row["id"], ())) for row in found]


# --- MySQL and MariaDB -----------------------------------------------------------------------------------------------

_MYSQL = """
SELECT p.ID AS id, p.USER AS usr, p.HOST AS client, p.INFO AS query, p.ID = CONNECTION_ID() AS is_ours,
  CASE WHEN t.trx_state = 'LOCK WAIT' OR p.STATE LIKE 'Waiting for %lock%' THEN 'waiting'
       WHEN p.COMMAND <> 'Sleep' THEN 'active'
       WHEN t.trx_id IS NOT NULL THEN 'idle in transaction' ELSE 'idle' END AS state,
  CASE WHEN t.trx_state <> 'LOCK WAIT' AND p.STATE LIKE 'Waiting for %lock%' THEN p.STATE
       WHEN t.trx_id IS NULL AND p.STATE LIKE 'Waiting for %lock%' THEN p.STATE END AS waits_for,
  CASE WHEN t.trx_wait_started IS NOT NULL THEN TIMESTAMPDIFF(MICROSECOND, t.trx_wait_started, {now}) / 1e6
       WHEN p.STATE LIKE 'Waiting for %lock%' THEN p.TIME END AS waiting_s,
  CASE WHEN p.COMMAND <> 'Sleep' THEN p.TIME END AS statement_s,
  TIMESTAMPDIFF(MICROSECOND, t.trx_started, {now}) / 1e6 AS transaction_s
FROM information_schema.PROCESSLIST p
LEFT JOIN information_schema.INNODB_TRX t ON t.trx_mysql_thread_id = p.ID
WHERE p.DB = DATABASE()
"""
# InnoDB writes its moments in the server's own zone, whatever the session's is.
_NOW = "CONVERT_TZ(UTC_TIMESTAMP(6), '+00:00', 'SYSTEM')"
_WAITS_MARIADB = """
SELECT r.trx_mysql_thread_id AS waiting, b.trx_mysql_thread_id AS holder,
  CONCAT(l.lock_mode, ' on ', l.lock_table) AS waits_for
FROM information_schema.INNODB_LOCK_WAITS w
JOIN information_schema.INNODB_TRX r ON r.trx_id = w.requesting_trx_id
JOIN information_schema.INNODB_TRX b ON b.trx_id = w.blocking_trx_id
LEFT JOIN information_schema.INNODB_LOCKS l ON l.lock_id = w.requested_lock_id
"""
_WAITS_MYSQL = """
SELECT r.trx_mysql_thread_id AS waiting, b.trx_mysql_thread_id AS holder,
  CONCAT(l.LOCK_MODE, ' on ', l.OBJECT_SCHEMA, '.', l.OBJECT_NAME) AS waits_for
FROM performance_schema.data_lock_waits w
JOIN information_schema.INNODB_TRX r ON r.trx_id = w.REQUESTING_ENGINE_TRANSACTION_ID
JOIN information_schema.INNODB_TRX b ON b.trx_id = w.BLOCKING_ENGINE_TRANSACTION_ID
LEFT JOIN performance_schema.data_locks l ON l.ENGINE_LOCK_ID = w.REQUESTING_ENGINE_LOCK_ID
"""
_TABLE_WAITS_MYSQL = """
SELECT waiting_pid AS waiting, blocking_pid AS holder,
  CONCAT(waiting_lock_type, ' on ', object_schema, '.', object_name) AS waits_for
FROM sys.schema_table_lock_waits WHERE waiting_pid <> blocking_pid
"""


def _mysql(connection: Any, cursor: Any, notes: list[str]) -> list[Session]:
    found = limited.rows(cursor, _MYSQL.replace("{now}", _NOW))
    sources = [_WAITS_MARIADB] if connection.mysql_is_mariadb else [_WAITS_MYSQL, _TABLE_WAITS_MYSQL]
    waits = [row for source in sources for row in _waits(cursor, source, notes)]
    blocked_by: dict[int, tuple[int, ...]] = {}
    names: dict[int, str] = {}
    for row in waits:
        known = blocked_by.get(row["waiting"], ())
        if row["holder"] not in known:
            blocked_by[row["waiting"]] = (*known, row["holder"])
        names[row["waiting"]] = str(row["waits_for"] or "").replace("`", "")
    if any("metadata" in str(row["waits_for"] or "") and row["id"] not in blocked_by for row in found):
        notes.append(
            "who holds a table's metadata lock is not told here: look for a session that is long in a transaction"
        )
    blocks = _blocks(blocked_by)
    return [
        _session(
            row | {"waits_for": names.get(row["id"]) or row["waits_for"]},
            "mysql",
            blocked_by.get(row["id"], ()),
            blocks.get(row["id"], ()),
        )
        for row in found
    ]


def _waits(cursor: Any, source: str, notes: list[str]) -> list[dict[str, Any]]:
    try:
        return limited.rows(cursor, source)
    except DatabaseError as error:
        code = getattr(error.__cause__, "args", ("",))[0]
        notes.append(
            f"who waits for whom is not told to this user (error {code}): it needs PROCESS and SELECT on sys"
        )
        return []


_ENGINES: dict[str, Callable[[Any, Any, list[str]], list[Session]]] = {
    "postgresql": _postgresql,
    "mysql": _mysql,
}
