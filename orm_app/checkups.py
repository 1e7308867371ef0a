"""What a DBA looks at first, each with a level, a reason and what to do: `checkups.of("default")`.

A look is bounded in time; one that fails says so and takes no other with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from django.db import Error, connections

from . import (
    checkups_mysql,
    checkups_postgresql,
    checkups_sqlite,
    health,
    limited,
    migration_journal,
    pools,
    replicas,
    status,
)
from .checkup_findings import BAD, OK, WARN, Finding
from .topology import topology

_SLOW_PROBE_MS = 250.0
_TIMEOUT_S = 3.0  # of one look
_BUDGET_S = 15.0  # of all looks at one database: what is left out then says so
_FORBIDDEN = {
    "42501",
    1044,
    1045,
    1142,
    1227,
}  # PostgreSQL's sqlstate; MySQL's codes: access denied, needs a privilege
_WORST = {OK: 0, WARN: 1, BAD: 2}

Look = Callable[[Any], Iterator[Finding] | list[Finding]]


@dataclass(frozen=True, slots=True)
class Table:
    """rows: by the engine's statistics; None where it has none."""

    name: str
    rows: int | None
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Checkup:
    """state: of the worst finding; "bad" too when the database does not answer."""

    alias: str
    engine: str
    version: str | None
    state: str
    findings: list[Finding]
    size_bytes: int | None = None
    tables: list[Table] = field(default_factory=list)  # the biggest, first


def every() -> list[Checkup]:
    return [of(alias) for alias in connections]


def of(alias: str, *, integrity: bool = False) -> Checkup:
    """integrity: also SQLite's quick_check, which reads the whole file."""
    seen = status.of(alias)
    if seen.state == "down":
        hint = "Look at the server, the network and DATABASE_URL."
        return Checkup(alias, seen.engine, None, BAD, [Finding("connection", BAD, seen.detail, hint)])
    engine = _ENGINES.get(seen.engine)
    findings = [*_connection(seen), *_migrations(alias, seen), *_pool(alias), *_replicas(alias)]
    size: int | None = None
    tables: list[Table] = []
    if engine is not None:
        looks = [
            *engine.LOOKS,
            *([checkups_sqlite.integrity] if integrity and seen.engine == "sqlite" else []),
        ]
        findings += _looked(alias, looks)
        size, tables = _sizes(alias, engine)
    worst = max(findings, key=lambda one: _WORST[one.level]).level
    return Checkup(alias, seen.engine, seen.version, worst, findings, size, tables)


def _looked(alias: str, looks: list[Look]) -> Iterator[Finding]:
    until = monotonic() + _BUDGET_S
    for look in looks:
        name = look.__name__.strip("_")
        left_s = until - monotonic()
        if left_s <= 0:
            yield Finding(name, WARN, "not looked at: the looks before it took too long")
            continue
        timeout_s = _BUDGET_S if name == "integrity" else min(_TIMEOUT_S, left_s)
        try:
            with limited.cursor(alias, timeout_s) as cursor:
                found = list(look(cursor))
        except (Error, OSError) as error:
            if _is_forbidden(error):  # what the site's user need not see is no trouble of the database's
                yield Finding(name, OK, "this user may not look at it")
            else:
                yield Finding(name, WARN, f"cannot be looked at: {health.reason(alias, error)}")
        else:
            yield from found


def _is_forbidden(error: BaseException) -> bool:
    cause: Any = error.__cause__ or error
    code = getattr(cause, "sqlstate", None) or (cause.args[0] if cause.args else None)
    return code in _FORBIDDEN


def _connection(seen: status.Status) -> Iterator[Finding]:
    text = f"answers in {seen.took_ms:g} ms"
    if seen.took_ms > _SLOW_PROBE_MS:
        hint = "The server is busy, far away, or names are looked up slowly."
        yield Finding("connection", WARN, text, hint, seen.took_ms)
    else:
        yield Finding("connection", OK, text, value=seen.took_ms)


def _migrations(alias: str, seen: status.Status) -> Iterator[Finding]:
    if alias in topology().primaries:
        return  # they come with its primary's rows
    try:
        broken = migration_journal.unfinished(connections[alias]) if seen.engine in _ENGINES else []
    except Error:
        broken = []
    for one in broken:
        hint = "Run `manage.py migrate` again: it goes on where it broke."
        yield Finding("migrations", BAD, f"{'.'.join(one.key)} broke half way", hint)
    if seen.pending_migrations is None:
        yield Finding("migrations", WARN, "nobody knows which are applied", "Run `manage.py migrate`.")
    elif seen.pending_migrations:
        text = f"{seen.pending_migrations} are pending"
        yield Finding("migrations", WARN, text, "Run `manage.py migrate`.", seen.pending_migrations)
    elif not broken:
        yield Finding("migrations", OK, "all are applied", value=0)


def _pool(alias: str) -> Iterator[Finding]:
    for one in pools.stats(alias):
        text = f"{one.in_use} of {one.max_size} connections of this process are lent"
        if one.waiting:
            hint = "Look at `database locks` and `database slow`; then raise pool_max_size."
            yield Finding("pool", WARN, f"{text}, {one.waiting} callers wait", hint, one.waiting)
        else:
            yield Finding("pool", OK, text, value=one.in_use)


def _replicas(alias: str) -> Iterator[Finding]:
    for one in replicas.states():
        if alias not in (one.alias, one.cluster):
            continue
        lag = "lag unknown" if one.lag_s is None else f"{one.lag_s:.1f} s behind"
        if one.usable:
            yield Finding("replica", OK, f"{one.alias}: {lag}", value=one.lag_s)
        else:
            yield Finding("replica", WARN, f"{one.alias} gets no reads: {one.reason}", "", one.lag_s)


def _sizes(alias: str, engine: Any) -> tuple[int | None, list[Table]]:
    try:
        with limited.cursor(alias, _TIMEOUT_S) as cursor:
            size, rows = engine.sizes(cursor)
    except (Error, OSError):
        return None, []
    return size, [Table(name, None if count is None else int(count), size_) for name, count, size_ in rows]


_ENGINES: dict[str, Any] = {
    "postgresql": checkups_postgresql,
    "mysql": checkups_mysql,
    "sqlite": checkups_sqlite,
}
