"""Every statement passes here once: its time, and whether its unit of work has sent it before.

A fast statement costs a clock, two comparisons and, within a unit, one entry in a dict; where it came from is looked up
when it was slow or is repeated.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import Any

import structlog
from django.db import connections
from django.db.backends.signals import connection_created

from orm_app import work
from orm_app.conf import conf

from . import call_sites, finding

log = structlog.get_logger(__name__)

MOST_STATEMENTS = 1_000  # different ones that are counted in one unit
_LONGEST_COUNTED = 20_000  # characters
_COUNTED = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "REPLACE", "MERGE")
# Slow by their nature, and told about by whoever runs them: `migrate` has its own progress.
_NEVER_SLOW = ("CREATE", "ALTER", "DROP", "VACUUM", "ANALYZE", "REINDEX", "CLUSTER", "OPTIMIZE", "EXPLAIN")
_is_ignored: ContextVar[bool] = ContextVar("orm_app_slow_ignored", default=False)
_unit_of_work = work._current.get  # a call less than work.current, for each statement


def install() -> None:
    """For the connections that there are and all that come: each wrapper object says so when it connects, pooled or not."""
    connection_created.connect(_connected, dispatch_uid="orm_app.slow")
    for connection in connections.all(initialized_only=True):
        _connected(connection=connection)


def _connected(*, connection: Any, **_: object) -> None:
    # The first place is the outermost, and it is never the one that `with connection.execute_wrapper` takes away.
    if watch not in connection.execute_wrappers:
        connection.execute_wrappers.insert(0, watch)


@contextmanager
def ignored() -> Iterator[None]:
    """What the block asks is neither slow nor repeated: looking at the databases is no finding."""
    token = _is_ignored.set(True)
    try:
        yield
    finally:
        _is_ignored.reset(token)


def watch(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
    began = perf_counter()
    error: BaseException | None = None
    try:
        return execute(sql, params, many, context)
    except BaseException as raised:
        error = raised
        raise
    finally:
        took_s = perf_counter() - began
        settings = conf()
        unit = _unit_of_work()
        # psycopg's composed SQL cannot be the key of a dict.
        if (
            unit is not None
            and isinstance(sql, str)
            and (settings.N_PLUS_ONE is not None or unit.kind == "test")
        ):
            alias = context["connection"].alias
            seen = unit.repeated.get((alias, sql))
            if seen is None:
                _first(unit, alias, sql, took_s)
            else:
                _again(seen, took_s, settings.N_PLUS_ONE)
        if settings.SLOW_QUERY_MS is not None and took_s * 1000 >= settings.SLOW_QUERY_MS:
            _slow(sql, params, many, context, took_s, error, unit)
        error = None  # a frame that holds its own exception is a cycle


class Seen:
    """One statement in one unit. sites: of its repeats, how many and for how long. awaited: what AWAITED means there."""

    __slots__ = ("awaited", "count", "sites", "total_s")

    def __init__(self, took_s: float) -> None:
        self.count = 1
        self.total_s = took_s
        self.sites: dict[call_sites.Site, list[float]] = {}
        self.awaited = call_sites.UNKNOWN


def _first(unit: work.Unit, alias: str, sql: str, took_s: float) -> None:
    if len(unit.repeated) < MOST_STATEMENTS and _is_counted(sql) and not _is_ignored.get():
        unit.repeated[alias, sql] = Seen(took_s)


def _again(seen: Seen, took_s: float, limit: int | None) -> None:
    seen.count += 1
    seen.total_s += took_s
    site = call_sites.of_stack(sys._getframe(2))
    if site is call_sites.AWAITED and seen.count == (limit or 2):  # once: it costs a look at every task
        seen.awaited = _of_waiting_task()
    found = seen.sites.get(site)
    if found is None:
        seen.sites[site] = [1, took_s]
    else:
        found[0] += 1
        found[1] += took_s


def _of_waiting_task() -> call_sites.Site:
    try:
        return call_sites.of_waiting_task(sys._getframe(3))
    except Exception:  # noqa: BLE001  (another thread's tasks: they may end while they are read)
        return call_sites.UNKNOWN


def _is_counted(sql: str) -> bool:
    """Savepoints have a name each, sessions are set up again and again, and a very long text is kept by nobody."""
    return len(sql) <= _LONGEST_COUNTED and _beginning(sql).startswith(_COUNTED)


def _beginning(sql: str) -> str:
    return sql.lstrip(" \t\r\n(")[:8].upper()


def _slow(
    sql: Any, params: Any, many: bool, context: Any, took_s: float, error: BaseException | None, unit: Any
) -> None:
    if _is_ignored.get() or (isinstance(sql, str) and _beginning(sql).startswith(_NEVER_SLOW)):
        return
    try:
        frame = sys._getframe(2)
        site = call_sites.of_stack(frame, through_batches=True)
        if site is call_sites.AWAITED:
            site = call_sites.of_waiting_task(frame)
        finding.slow(
            context["connection"],
            context["cursor"],
            sql,
            None if many else params,
            took_s * 1000,
            site,
            unit,
            error,
        )
    except Exception as failure:  # noqa: BLE001  (the statement itself went well)
        log.warning("slow_query_not_noted", error=type(failure).__name__)
