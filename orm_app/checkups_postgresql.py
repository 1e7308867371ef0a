"""What there is to look at in PostgreSQL. Each look gets a cursor that is bounded in time and rolled back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .checkup_findings import BAD, OK, WARN, Finding, above, below
from .limited import rows

_BIGGEST = 10
_NAMED = 3  # tables of one finding
_DEAD_ROWS = 10_000


def connections(cursor: Any) -> Iterator[Finding]:
    [row] = rows(
        cursor,
        "SELECT count(*) AS used, current_setting('max_connections')::int AS most,"
        " current_setting('superuser_reserved_connections')::int"
        " + COALESCE(current_setting('reserved_connections', true)::int, 0) AS reserved"
        " FROM pg_stat_activity WHERE backend_type = 'client backend'",
    )
    room = max(1, row["most"] - row["reserved"])
    text = f"{row['used']} of {room} connections are used ({row['reserved']} more are reserved)"
    hint = "Lower the pools, raise max_connections, or put a pooler in front."
    yield above("connections", row["used"] / room, text, hint, warn=0.8, bad=0.95)


def transactions(cursor: Any) -> Iterator[Finding]:
    [row] = rows(
        cursor,
        "SELECT COALESCE(max(extract(epoch FROM clock_timestamp() - xact_start)), 0) AS longest,"
        " COALESCE(max(extract(epoch FROM clock_timestamp() - state_change))"
        "   FILTER (WHERE state LIKE 'idle in transaction%'), 0) AS idle"
        " FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
        " AND pid <> pg_backend_pid()",
    )
    longest, idle = float(row["longest"]), float(row["idle"])
    hint = "It keeps dead rows from being cleaned up and may hold locks: see `database locks`."
    yield above(
        "longest_transaction",
        longest,
        f"the longest transaction is {longest:.0f} s old",
        hint,
        warn=300,
        bad=3600,
    )
    yield above(
        "idle_in_transaction",
        idle,
        f"the longest idle in a transaction is so for {idle:.0f} s",
        hint,
        warn=60,
    )


def cache(cursor: Any) -> Iterator[Finding]:
    [row] = rows(
        cursor,
        "SELECT blks_hit AS hits, blks_read AS reads FROM pg_stat_database WHERE datname = current_database()",
    )
    total = row["hits"] + row["reads"]
    if total < 10_000:
        yield Finding("cache", OK, "too few reads to say how many come from memory")
        return
    ratio = row["hits"] / total
    yield below("cache", ratio, f"{ratio:.1%} of the pages read came from memory", "Raise shared_buffers, or look at `database slow` for scans.", warn=0.9)  # fmt: skip


def dead_rows(cursor: Any) -> Iterator[Finding]:
    found = rows(
        cursor,
        "SELECT relname AS name, n_dead_tup AS dead, n_live_tup AS live, last_autovacuum AS vacuumed"
        " FROM pg_stat_user_tables WHERE n_dead_tup > %s AND n_dead_tup > 0.2 * (n_live_tup + n_dead_tup)"
        " ORDER BY n_dead_tup DESC",
        [_DEAD_ROWS],
    )
    if not found:
        yield Finding("dead_rows", OK, "no table is full of dead rows", value=0)
    for row in found[:_NAMED]:
        last = (
            f"last autovacuum {row['vacuumed']:%Y-%m-%d %H:%M}" if row["vacuumed"] else "never autovacuumed"
        )
        text = f"{row['name']}: {row['dead']:,} dead of {row['dead'] + row['live']:,} rows, {last}"
        yield Finding(
            "dead_rows",
            WARN,
            text,
            f"VACUUM {row['name']}; look for transactions that stay open.",
            row["dead"],
        )


def wraparound(cursor: Any) -> Iterator[Finding]:
    [row] = rows(
        cursor,
        "SELECT age(datfrozenxid) AS age, current_setting('autovacuum_freeze_max_age')::bigint AS most"
        " FROM pg_database WHERE datname = current_database()",
    )
    text = f"the oldest unfrozen transaction is {row['age']:,} transactions old"
    hint = "Let VACUUM (FREEZE) run through: at two thousand million the server refuses to write."
    # Autovacuum begins at `most` by itself; well above it, something keeps it from getting through.
    yield above(
        "wraparound", row["age"], text, hint, warn=max(row["most"] * 1.5, 500_000_000), bad=1_500_000_000
    )


def invalid_indexes(cursor: Any) -> Iterator[Finding]:
    found = rows(
        cursor,
        "SELECT indexrelid::regclass::text AS name, indrelid::regclass::text AS tbl FROM pg_index WHERE NOT indisvalid",
    )
    if not found:
        yield Finding("invalid_indexes", OK, "every index is valid", value=0)
    for row in found[:_NAMED]:
        hint = f"DROP INDEX CONCURRENTLY {row['name']}, and create it again."
        yield Finding(
            "invalid_indexes",
            WARN,
            f"{row['name']} on {row['tbl']} is maintained and never used",
            hint,
            len(found),
        )


def sequences(cursor: Any) -> Iterator[Finding]:
    found = rows(
        cursor,
        "SELECT s.schemaname || '.' || s.sequencename AS name, s.last_value::numeric / LEAST(s.max_value,"
        "   CASE a.atttypid WHEN 21 THEN 32767 WHEN 23 THEN 2147483647 ELSE s.max_value END) AS part"
        " FROM pg_sequences s JOIN pg_class c ON c.relname = s.sequencename AND c.relkind = 'S'"
        " JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = s.schemaname"
        " LEFT JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')"
        " LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND d.refobjsubid > 0"
        " WHERE s.last_value IS NOT NULL AND s.increment_by > 0 AND NOT s.cycle ORDER BY part DESC LIMIT 3",
    )
    near = [row for row in found if float(row["part"]) >= 0.7]
    if not near:
        most = float(found[0]["part"]) if found else 0.0
        yield Finding("sequences", OK, f"no key is near its end (the fullest is at {most:.1%})", value=most)
    for row in near:
        part = float(row["part"])
        level = BAD if part >= 0.9 else WARN
        yield Finding(
            "sequences",
            level,
            f"{row['name']} is at {part:.0%} of its column's type",
            "Make the column a bigint.",
            part,
        )


def replication(cursor: Any) -> Iterator[Finding]:
    """Of this server where it is a standby itself, and of those that follow it."""
    cursor.execute("SELECT pg_is_in_recovery()")
    if cursor.fetchone()[0]:
        cursor.execute(
            "SELECT CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0"
            " ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END"
        )
        lag = float(cursor.fetchone()[0] or 0)
        yield above(
            "replication",
            lag,
            f"this standby is {lag:.0f} s behind",
            "Its reads are that old.",
            warn=30,
            bad=600,
        )
        return
    followers = rows(
        cursor,
        "SELECT COALESCE(NULLIF(application_name, ''), host(client_addr), 'a standby') AS name, state,"
        " COALESCE(extract(epoch FROM replay_lag), 0) AS lag FROM pg_stat_replication",
    )
    for row in followers:
        text = f"{row['name']} ({row['state'] or 'unknown'}) is {float(row['lag']):.1f} s behind"
        yield above(
            "replication", float(row["lag"]), text, "It is slow, or a long read holds it up.", warn=30
        )


def sizes(cursor: Any) -> tuple[int, list[tuple[str, int | None, int]]]:
    cursor.execute("SELECT pg_database_size(current_database())")
    total = int(cursor.fetchone()[0])
    found = rows(
        cursor,
        "SELECT c.oid::regclass::text AS name, c.reltuples::bigint AS n, pg_total_relation_size(c.oid) AS size"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm')"
        " AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY c.relpages DESC LIMIT %s",
        [_BIGGEST],
    )
    # -1: nobody has analyzed it yet.
    tables = [(row["name"], row["n"] if row["n"] >= 0 else None, int(row["size"])) for row in found]
    return total, sorted(tables, key=lambda table: -table[2])


LOOKS = (connections, transactions, cache, dead_rows, wraparound, invalid_indexes, sequences, replication)
