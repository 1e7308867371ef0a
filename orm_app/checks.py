"""System checks of DATABASES: what Django accepts without a word and production regrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import Error as DatabaseError
from django.db import connections

from .conf import conf
from .mysql_pool import options as mysql_options

_MYSQL = "orm_app.mysql_pool"
_POSTGRESQL = ("orm_app.postgresql", "django.db.backends.postgresql")
# What is left for us: PostgreSQL keeps some for superusers, and since version 16 for a role of that name.
_CONNECTIONS_SQL = {
    "postgresql": "SELECT current_setting('max_connections')::int"
    " - current_setting('superuser_reserved_connections')::int"
    " - COALESCE(current_setting('reserved_connections', true)::int, 0)",
    "mysql": "SELECT IF(@@max_user_connections > 0, LEAST(@@max_user_connections, @@max_connections),"
    " @@max_connections)",
}
_POOL_SIZE = {_MYSQL: mysql_options.PoolOptions().max_size} | dict.fromkeys(
    _POSTGRESQL, 4
)  # where the entry says True
_ENTRY_KEYS = {
    "ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS", "TEST", "TIME_ZONE", "AUTOCOMMIT",
    "ATOMIC_REQUESTS", "CONN_MAX_AGE", "CONN_HEALTH_CHECKS", "DISABLE_SERVER_SIDE_CURSORS",
    "REPLICA_OF",
}  # fmt: skip


@register("orm_app")
def databases_are_sound(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return unsound(settings.DATABASES, has_asgi=bool(getattr(settings, "ASGI_APPLICATION", None)))


@register(Tags.database)
def pools_fit(app_configs: Any, databases: Iterable[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Runs with `check --database ALIAS` and before migrate, as it asks the servers."""
    asked = set(databases or ())
    found: list[CheckMessage] = []
    for aliases in sharing_a_server(settings.DATABASES):
        room = _room(connections[aliases[0]]) if asked & set(aliases) else None
        if room is not None:
            sizes = {alias: most_connections(settings.DATABASES[alias]) for alias in aliases}
            found += crowded(sizes, processes=conf().PROCESSES, room=room)
    return found


@register(Tags.database)
def charsets_hold_every_text(
    app_configs: Any, databases: Iterable[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """MariaDB before 11.6 makes databases in latin1 unless it is told, and tables have their database's."""
    found: list[CheckMessage] = []
    for alias in databases or ():
        connection: Any = connections[alias]
        charset = _charset(connection) if connection.vendor == "mysql" else None
        if charset not in (None, "utf8mb4"):
            name = connection.settings_dict["NAME"]
            text = f"DATABASES[{alias!r}]: the database {name} has the character set {charset}: not every text fits."
            hint = (
                f"Before the first migrate: ALTER DATABASE `{name}` CHARACTER SET utf8mb4. Tables that are there: "
                "ALTER TABLE … CONVERT TO CHARACTER SET utf8mb4, each of them."
            )
            found.append(_warning("W005", text, hint))
    return found


def _charset(connection: Any) -> str | None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@character_set_database")
            return str(cursor.fetchone()[0])
    except DatabaseError:
        return None


def sharing_a_server(databases: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The aliases that have a pool, those of one server together."""
    servers: dict[tuple[object, ...], list[str]] = {}
    for alias, entry in databases.items():
        if most_connections(entry):
            key = tuple(entry.get(name, "") for name in ("ENGINE", "HOST", "PORT"))
            servers.setdefault(key, []).append(alias)
    return list(servers.values())


def most_connections(entry: Mapping[str, Any]) -> int:
    """Of one process; 0: there is no pool, so nobody knows."""
    pool, engine = entry.get("OPTIONS", {}).get("pool"), entry.get("ENGINE", "")
    if not pool or engine not in _POOL_SIZE:
        return 0
    given = pool if isinstance(pool, Mapping) else {}
    # psycopg_pool: without max_size it is min_size, which is 4.
    fallback = given.get("min_size", 4) if engine in _POSTGRESQL else _POOL_SIZE[engine]
    return int(given.get("max_size") or fallback)


def crowded(sizes: Mapping[str, int], *, processes: int, room: int) -> list[CheckMessage]:
    """room: connections that the server has for us. sizes: of each alias's pool in one process."""
    most = processes * sum(sizes.values())
    if most <= room:
        return []
    names = ", ".join(f"DATABASES[{alias!r}]" for alias in sizes)
    counted = " + ".join(str(size) for size in sizes.values())
    text = f"{names}: {processes} processes × ({counted}) may open {most} connections, the server has {room}."
    hint = (
        "Lower OPTIONS['pool']['max_size'] (pool_max_size in the URL), raise the server's max_connections, or put a "
        "pooler in front. BRAIN['DATABASE']['PROCESSES'] is how many processes use the database at once."
    )
    return [_warning("W004", text, hint)]


def _room(connection: Any) -> int | None:
    """None when the server does not answer: that is not this check's to say."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(_CONNECTIONS_SQL[connection.vendor])
            return int(cursor.fetchone()[0])
    except DatabaseError:
        return None


def unsound(databases: Mapping[str, Mapping[str, Any]], *, has_asgi: bool) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for alias, entry in databases.items():
        found += misplaced(alias, entry)
        found += outliving(alias, entry, has_asgi=has_asgi)
        found += pooled(alias, entry)
        found += locking(alias, entry)
    return found


def misplaced(alias: str, entry: Mapping[str, Any]) -> list[CheckMessage]:
    """OPTIONS beside "default" instead of inside it, or an option beside OPTIONS: Django ignores both silently."""
    if alias in _ENTRY_KEYS:
        where = f"Move it into DATABASES['default'][{alias!r}]."
        return [_error("E001", f"DATABASES[{alias!r}] is read as a database named {alias!r}.", where)]
    return [
        _error(
            "E002",
            f"DATABASES[{alias!r}][{key!r}] has no effect.",
            f"Move it into DATABASES[{alias!r}]['OPTIONS'], or remove it.",
        )
        for key in entry
        if key not in _ENTRY_KEYS
    ]


def outliving(alias: str, entry: Mapping[str, Any], *, has_asgi: bool) -> list[CheckMessage]:
    if not has_asgi or entry.get("CONN_MAX_AGE", 0) == 0 or entry.get("OPTIONS", {}).get("pool"):
        return []
    hint = f"Set it to 0 and use a pool: OPTIONS['pool'] on PostgreSQL, and with ENGINE {_MYSQL} on MySQL."
    text = f"DATABASES[{alias!r}]['CONN_MAX_AGE'] leaks a connection for each request under ASGI."
    return [_warning("W001", text, hint)]


def pooled(alias: str, entry: Mapping[str, Any]) -> list[CheckMessage]:
    """What would be an error of the first query."""
    engine, pool = entry.get("ENGINE"), entry.get("OPTIONS", {}).get("pool")
    if not pool:
        return []
    name = f"DATABASES[{alias!r}]"
    found = []
    if engine == "django.db.backends.mysql":
        text = f"{name}['OPTIONS']['pool']: Django's MySQL backend has no pool."
        found.append(
            _error("E003", text, f"Set ENGINE to {_MYSQL!r}, or build the entry from a mysql:// URL.")
        )
    if entry.get("CONN_MAX_AGE", 0) != 0:
        text = f"{name} has a pool and a CONN_MAX_AGE that is not 0."
        found.append(_error("E004", text, "Set CONN_MAX_AGE to 0: the pool keeps its connections open."))
    if engine == _MYSQL:
        try:
            mysql_options.read(pool)
        except ValueError as error:
            text = f"{name}['OPTIONS']['pool']: {error}."
            found.append(_error("E005", text, "Its keys are those of psycopg_pool."))
    return found


def locking(alias: str, entry: Mapping[str, Any]) -> list[CheckMessage]:
    if entry.get("ENGINE") not in ("orm_app.sqlite", "django.db.backends.sqlite3"):
        return []
    found = []
    if str(entry.get("OPTIONS", {}).get("transaction_mode", "")).upper() != "IMMEDIATE":
        hint = (
            "Set OPTIONS['transaction_mode'] = 'IMMEDIATE', or build the entry by orm_app.databases.from_url."
        )
        text = (
            f"DATABASES[{alias!r}] fails with 'database is locked' when two transactions read and then write."
        )
        found.append(_warning("W002", text, hint))
    if entry.get("ATOMIC_REQUESTS"):
        text = (
            f"DATABASES[{alias!r}]['ATOMIC_REQUESTS'] makes every request wait for the one writer of SQLite."
        )
        found.append(
            _warning("W003", text, "Open a transaction where something is written: db.transaction().")
        )
    return found


def _error(number: str, text: str, hint: str) -> CheckMessage:
    return Error(text, hint=_with_anchor(hint, number), id=f"orm_app.{number}")


def _warning(number: str, text: str, hint: str) -> CheckMessage:
    return Warning(text, hint=_with_anchor(hint, number), id=f"orm_app.{number}")


def _with_anchor(hint: str, number: str) -> str:
    return f"{hint} See docs/checks.md#orm_app-{number.lower()}."
