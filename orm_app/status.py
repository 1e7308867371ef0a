"""What there is to know about each configured database; the command, the API and the dashboard show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import Error, connections
from django.db.migrations.executor import MigrationExecutor

from . import health, mongo, replicas

_VERSION_SQL = {
    "sqlite": "SELECT sqlite_version()",
    "postgresql": "SHOW server_version",
    "mysql": "SELECT VERSION()",
}


@dataclass(frozen=True, slots=True)
class Status:
    """state: "ok", "degraded" (migrations are pending, callers wait for a connection, a replica gets no reads) or "down"."""

    alias: str
    state: str
    detail: str
    engine: str
    name: str
    server: str  # user@host:port, never the password; "" for a file
    version: str | None
    took_ms: float
    pending_migrations: int | None
    pool: dict[str, int] | None  # of this process: connections open, idle, callers waiting, most connections


def every() -> list[Status]:
    return [of(alias) for alias in connections]


def of(alias: str) -> Status:
    connection: Any = connections[alias]
    probe = health.check(alias)
    pool = _pool(connection)
    pending = version = None
    detail, trouble = probe.detail, ""
    if probe.ok:
        version = _version(connection)
        replica = replicas.state(alias)
        pending = None if replica else _pending_migrations(connection)  # its primary's come by themselves
        trouble = _trouble(pending, pool) or (
            f"no reads: {replica.reason}" if replica and replica.reason else ""
        )
        detail = trouble or detail
    return Status(
        alias=alias,
        state="down" if not probe.ok else "degraded" if trouble else "ok",
        detail=detail,
        engine=connection.vendor,
        name=str(connection.settings_dict["NAME"]),
        server=_server(connection.settings_dict),
        version=version,
        took_ms=probe.took_ms,
        pending_migrations=pending,
        pool=pool,
    )


def down(alias: str, detail: str) -> Status:
    """Of one that did not answer in time; nothing is asked."""
    connection: Any = connections[alias]
    settings = connection.settings_dict
    return Status(
        alias=alias, state="down", detail=detail, engine=connection.vendor, name=str(settings["NAME"]),
        server=_server(settings), version=None, took_ms=0.0, pending_migrations=None, pool=_pool(connection),
    )  # fmt: skip


def _trouble(pending: int | None, pool: dict[str, int] | None) -> str:
    if pending:
        return "1 migration is pending" if pending == 1 else f"{pending} migrations are pending"
    if pool and pool["waiting"]:
        return f"{pool['waiting']} callers wait for a connection"
    return ""


def _server(settings: dict[str, Any]) -> str:
    if settings.get("ENGINE") == mongo.ENGINE:
        settings = settings | {"HOST": mongo.hosts(settings)}  # which may hold secrets in its query
    host, port, user = (str(settings.get(key) or "") for key in ("HOST", "PORT", "USER"))
    return f"{f'{user}@' if user else ''}{host}{f':{port}' if port else ''}"


def _version(connection: Any) -> str | None:
    try:
        if mongo.is_on(connection.alias):
            return mongo.version(connection)
        with connection.cursor() as cursor:
            cursor.execute(_VERSION_SQL[connection.vendor])
            return str(cursor.fetchone()[0])
    except (Error, KeyError):
        return None


def _pending_migrations(connection: Any) -> int | None:
    try:
        with mongo.errors_as_djangos_on(connection.alias):
            executor = MigrationExecutor(connection)
        return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    except Error:
        return None


def _pool(connection: Any) -> dict[str, int] | None:
    pool = getattr(connection, "pool", None)
    if pool is None:
        return None
    stats = pool.get_stats()
    return {
        "size": stats.get("pool_size", 0),
        "idle": stats.get("pool_available", 0),
        "waiting": stats.get("requests_waiting", 0),
        "max": stats.get("pool_max", 0),
    }
