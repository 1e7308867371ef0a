"""A small benchmark of one database: round trips, inserts, point reads, keyset pages, waiting for the pool.

It works in a table of its own, which is dropped at the end however that comes; a killed one leaves `brain_bench_…`.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connections, transaction

STEPS = 6
_BATCH, _PAGE, _THREADS = 100, 50, 8
_BODY = "x" * 100
_MOST_ROWS = 1_000_000  # of the table: a long run shall not fill a disk


class NotPossible(Exception):
    """This database has no SQL, or is in memory."""


@dataclass(frozen=True, slots=True)
class Measure:
    """rate: units per second. p50_ms, p99_ms: of one call."""

    what: str
    unit: str
    rate: float
    p50_ms: float
    p99_ms: float
    samples: int


def run(alias: str, *, seconds: float, advance: Callable[[], None]) -> list[Measure]:
    """seconds: together. advance: called after each step. Raises NotPossible."""
    connection: Any = connections[alias]
    if connection.vendor not in ("postgresql", "mysql", "sqlite"):
        raise NotPossible(f"no benchmark of {connection.display_name} is here")
    each_s = seconds / STEPS
    found = []
    with _table(connection) as bench:
        for step in (bench.round_trips, bench.commits, bench.inserts, bench.point_reads, bench.pages):
            found.append(step(each_s))
            advance()
    found.append(_connections(alias, each_s))
    advance()
    return found


@contextmanager
def _table(connection: Any) -> Iterator[_Bench]:
    name = f"brain_bench_{secrets.token_hex(4)}"
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {name} (id BIGINT PRIMARY KEY, account BIGINT, body VARCHAR(100))")
    try:
        yield _Bench(connection, name)
    finally:
        if connection.needs_rollback:
            connection.set_rollback(False)
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE {name}")


class _Bench:
    def __init__(self, connection: Any, table: str) -> None:
        self._connection, self._table, self._last = connection, table, 0
        self._random = random.Random(7)  # noqa: S311  (which rows are read)

    def round_trips(self, for_s: float) -> Measure:
        return _measured("round trip", "statement", for_s, lambda: self._ask("SELECT 1"))

    def commits(self, for_s: float) -> Measure:
        return _measured("insert, one a transaction", "row", for_s, lambda: self._insert(1))

    def inserts(self, for_s: float) -> Measure:
        return _measured(
            f"insert, {_BATCH} a transaction", "row", for_s, lambda: self._insert(_BATCH), _BATCH
        )

    def point_reads(self, for_s: float) -> Measure:
        sql = f"SELECT account, body FROM {self._table} WHERE id = %s"  # noqa: S608  (our own name)
        return _measured("read by primary key", "row", for_s, lambda: self._ask(sql, self._any_id()))

    def pages(self, for_s: float) -> Measure:
        sql = f"SELECT id, account, body FROM {self._table} WHERE id > %s ORDER BY id LIMIT {_PAGE}"  # noqa: S608
        return _measured(f"page of {_PAGE} (keyset)", "page", for_s, lambda: self._ask(sql, self._any_id()))

    def _any_id(self) -> int:
        return self._random.randint(1, max(1, self._last))

    def _insert(self, count: int) -> None:
        if self._last + count > _MOST_ROWS:
            return
        rows = [(self._last + 1 + number, number, _BODY) for number in range(count)]
        with transaction.atomic(using=self._connection.alias), self._connection.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {self._table} (id, account, body) VALUES (%s, %s, %s)", rows)  # noqa: S608
        self._last += count

    def _ask(self, sql: str, *params: int) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, params or None)
            cursor.fetchall()


def _connections(alias: str, for_s: float) -> Measure:
    """As requests do: each of several threads gets a connection, asks, and gives it back."""
    took: list[float] = []
    errors: list[BaseException] = []
    deadline = time.monotonic() + for_s

    def request() -> None:
        connection = connections[alias]
        try:
            while time.monotonic() < deadline:
                began = time.perf_counter()
                connection.ensure_connection()
                took.append(time.perf_counter() - began)
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1")
                connection.close()
        except Exception as error:  # noqa: BLE001  (a thread's error is its caller's)
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=request) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return _of(f"connection, {_THREADS} threads", "connection", took, for_s, 1)


def _measured(what: str, unit: str, for_s: float, call: Callable[[], None], units: int = 1) -> Measure:
    took: list[float] = []
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < for_s or not took:
        call()
        took.append(time.perf_counter() - now)
    return _of(what, unit, took, time.perf_counter() - began, units)


def _of(what: str, unit: str, took: list[float], whole_s: float, units: int) -> Measure:
    ordered = sorted(took)

    def at(part: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))] * 1000, 3)

    return Measure(what, unit, round(len(took) * units / whole_s, 1), at(0.5), at(0.99), len(took))
