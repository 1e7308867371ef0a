"""DATABASE_ROUTERS = ["orm_app.router.Router"]: apps on their own databases, writes to primaries, reads to replicas.

    model → cluster → pinned? written? in a transaction? → the primary
                    → else a replica that is fresh enough, or the primary when there is none

Outside a unit of work (`orm_app.work`) nobody knows what has been written before, so reads go to the primary.
"""

from __future__ import annotations

import random
from contextlib import suppress
from contextvars import ContextVar
from time import monotonic
from types import TracebackType
from typing import Any

from django.db import connections, models
from django.db.backends.signals import connection_created

from . import losses, replicas, routing, work
from .conf import conf
from .topology import topology
from .transaction_blocks import innermost, joined

_PRIMARY, _REPLICA = "primary", "replica"
_block: ContextVar[_Reads | None] = ContextVar("orm_app_reads_from", default=None)
# What does not begin with one of these may write. A function that writes within a SELECT is not seen: db.primary().
_HARMLESS = (
    "SELECT", "SAVEPOINT", "RELEASE", "ROLLBACK", "BEGIN", "COMMIT", "SET", "SHOW", "EXPLAIN", "DECLARE", "FETCH", "CLOSE", "VALUES",
)  # fmt: skip


class Router:
    def db_for_read(self, model: type[models.Model], **hints: Any) -> str | None:
        known, app = topology(), model._meta.app_label
        if not known.homes and not known.primaries:
            return None  # as Django does by itself
        home = routing.cluster(known, app, _near(hints))
        if not known.replicas:
            return home
        primary = home or routing.DEFAULT
        its_replicas = known.replicas.get(primary)
        if its_replicas is None or app in conf().READ_FROM_PRIMARY:
            return primary
        return source(primary, its_replicas)

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str | None:
        return routing.cluster(topology(), model._meta.app_label, _near(hints))

    def allow_relation(self, one: models.Model, other: models.Model, **hints: Any) -> bool | None:
        return routing.may_relate(topology(), one._state.db, other._state.db)

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return routing.may_migrate(
            topology(), db, hints.get("app", app_label)
        )  # SQL's app is not whose it is


class _Reads:
    """`with` and `async with`; blocks nest, and the innermost holds."""

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        self.sources: dict[str, str] = {}  # primary's alias → the replica that the block's reads take
        self._tokens: list[Any] = []

    def __enter__(self) -> None:
        self._tokens.append(_block.set(self))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ValueError):  # of a generator that is closed in another context
            _block.reset(self._tokens.pop())

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def primary() -> _Reads:
    """`with db.primary():` what is read in the block is the newest there is."""
    return _Reads(_PRIMARY)


def replica() -> _Reads:
    """`with db.replica():` reads of the block may be as old as REPLICA_MAX_LAG_S, whatever this unit has written: for
    reports. Within a transaction they stay on the primary, and so do they when no replica is to be had."""
    return _Reads(_REPLICA)


def source(primary: str, its_replicas: tuple[str, ...]) -> str:
    """The alias that a read of this cluster takes now.

    A unit stays with one replica, and never goes back in time: what it has read from the primary, a replica must have.
    """
    block, unit = _block.get(), work.current()
    if block is not None and block.wanted == _REPLICA:
        return _of_block(block, primary, its_replicas)
    if unit is None or unit.is_over or primary in unit.written:
        return primary
    if block is not None:
        return _of_primary(unit, primary)
    before = unit.sources.get(primary)
    found = _available(primary, its_replicas, unit.must_see(primary))
    # Another replica than before may be behind it.
    chosen = (before if before in found else None) if before else _any_of(found)
    if chosen is None:
        return _of_primary(unit, primary)
    return unit.sources.setdefault(primary, chosen)  # threads of one unit may come at once


def _of_primary(unit: work.Unit, primary: str) -> str:
    unit.sources.pop(primary, None)
    unit.read_from_primary[primary] = monotonic()
    return primary


def _of_block(block: _Reads, primary: str, its_replicas: tuple[str, ...]) -> str:
    """One replica as long as it is to be had: rows and what is prefetched for them are of one moment, more or less."""
    found = _available(primary, its_replicas, None)
    before = block.sources.get(primary)
    if before is not None and before in found:
        return before
    chosen = _any_of(found)
    if chosen is None:
        return primary
    block.sources[primary] = chosen
    return chosen


def _available(primary: str, its_replicas: tuple[str, ...], since: float | None) -> list[str]:
    return [] if is_in_transaction(primary) else replicas.cluster(primary, its_replicas).available(since)


def _any_of(found: list[str]) -> str | None:
    return random.choice(found) if found else None  # noqa: S311


def is_in_transaction(alias: str) -> bool:
    if joined(alias, innermost.get()) is not None:
        return True  # of an `async with` block, also where its thread's connection is not this one's
    connection: Any = connections[alias]
    return bool(
        connection.in_atomic_block or (connection.connection is not None and not connection.autocommit)
    )


def install() -> None:
    """Every statement of a primary that has replicas tells whether it writes; every one of a replica, whether it is away."""
    connection_created.connect(_connected, dispatch_uid="orm_app.router")


def _connected(*, connection: Any, **_: object) -> None:
    known = topology()
    hook = None
    if connection.alias in known.replicas:
        hook = _notice_write
    elif connection.alias in known.primaries:
        hook = _notice_loss
    # The first place is never the one that `with connection.execute_wrapper` takes away.
    if hook is not None and hook not in connection.execute_wrappers:
        connection.execute_wrappers.insert(0, hook)


def _notice_write(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
    unit = work.current()
    if unit is None:
        return execute(sql, params, many, context)
    alias = context["connection"].alias
    if may_write(sql):
        unit.written.add(alias)
    try:
        return execute(sql, params, many, context)
    finally:
        if (
            alias in unit.read_from_primary
        ):  # it may have waited since it was sent there, and has seen all until now
            unit.read_from_primary[alias] = monotonic()


def _notice_loss(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
    try:
        return execute(sql, params, many, context)
    except Exception as error:
        alias = context["connection"].alias
        if losses.is_loss(error):
            replicas.failed(alias, losses.line(alias, error))
        raise


def may_write(sql: Any) -> bool:
    if not isinstance(sql, str):
        return True  # psycopg's composed SQL
    word = sql.lstrip(" \t\r\n(")[:10].upper()
    if word.startswith("WITH"):
        upper = sql.upper()
        return any(verb in upper for verb in ("INSERT", "UPDATE", "DELETE", "MERGE"))
    return not word.startswith(_HARMLESS)


def _near(hints: dict[str, Any]) -> tuple[str, str] | None:
    instance = hints.get("instance")
    if instance is None or not instance._state.db:
        return None
    return instance._meta.app_label, instance._state.db
