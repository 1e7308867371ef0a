"""What was found: one log line each, not more often than LOG_EVERY_S for the same, and an entry that waits to be stored."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import structlog
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily

from orm_app.work import Unit

from . import normal
from .call_sites import Site

log = structlog.get_logger(__name__)

SLOW, N_PLUS_ONE = "slow", "n_plus_one"
LOG_EVERY_S = 10.0  # for one fingerprint
_MOST_WAITING = 500  # different findings of a process that are not stored yet
_MOST_SAID = 2_000
_LONGEST_PLANNED = 50_000  # characters of a statement that is kept for its plan
_LOGGED_SQL = 1_000


@dataclass(slots=True)
class Found:
    """One fingerprint since the last flush. count: of findings; statements: sent in them; most: in one unit."""

    fingerprint: str
    kind: str
    alias: str
    sql: str  # normalised
    call_site: str
    hint: str
    last_ms: float
    statements: int = 1
    most: int = 1
    count: int = 1
    total_ms: float = 0.0
    max_ms: float = 0.0
    rows: int | None = None
    in_transaction: bool = False
    error: str = ""
    unit: tuple[str, str, str] = ("", "", "")  # kind, name, id
    first_seen: datetime = field(default_factory=lambda: datetime.now(UTC))
    last_seen: datetime = field(default_factory=lambda: datetime.now(UTC))
    raw: tuple[str, Any] | None = (
        None  # statement and parameters, for its plan: they never leave this process's memory
    )

    def __post_init__(self) -> None:
        self.total_ms = self.max_ms = self.last_ms

    def add(self, newer: Found) -> None:
        self.count += newer.count
        self.statements += newer.statements
        self.most = max(self.most, newer.most)
        self.total_ms += newer.total_ms
        self.max_ms = max(self.max_ms, newer.max_ms)
        self.last_ms, self.last_seen = newer.last_ms, newer.last_seen
        self.rows, self.in_transaction, self.error = newer.rows, newer.in_transaction, newer.error
        self.unit, self.raw, self.hint = newer.unit, newer.raw or self.raw, newer.hint or self.hint


class Findings:
    """Of one process: what waits to be stored, what was said when, and counts for Prometheus."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, Found] = {}
        self._said: dict[
            str, list[float]
        ] = {}  # fingerprint → when (monotonic), and how many were not said since
        self.counts: dict[tuple[str, str], int] = {}  # (kind, alias) → findings
        self.dropped = 0

    def add(self, found: Found) -> None:
        with self._lock:
            key = found.kind, found.alias
            self.counts[key] = self.counts.get(key, 0) + 1
            known = self._waiting.get(found.fingerprint)
            if known is not None:
                known.add(found)
            elif len(self._waiting) < _MOST_WAITING:
                self._waiting[found.fingerprint] = found
            else:
                self.dropped += 1

    def take(self) -> list[Found]:
        with self._lock:
            taken, self._waiting = list(self._waiting.values()), {}
        return taken

    def drop(self, number: int) -> None:
        with self._lock:
            self.dropped += number

    def unsaid(self, fingerprint: str, now: float) -> int | None:
        """None: be silent. Else how many were not logged since the last line."""
        with self._lock:
            said = self._said.get(fingerprint)
            if said is not None and now - said[0] < LOG_EVERY_S:
                said[1] += 1
                return None
            if len(self._said) >= _MOST_SAID:
                self._said.clear()
            self._said[fingerprint] = [now, 0]
            return int(said[1]) if said else 0

    def forget(self) -> None:
        with self._lock:
            self._waiting, self._said = {}, {}


findings = Findings()


def slow(
    connection: Any,
    cursor: Any,
    sql: Any,
    params: Any,
    took_ms: float,
    site: Site,
    unit: Unit | None,
    error: BaseException | None,
) -> None:
    raw = sql if isinstance(sql, str) else _composed(sql, connection)
    shape = normal.normalise(raw, connection.vendor)
    where = str(site) if site.file else ""
    found = Found(
        fingerprint=normal.fingerprint(SLOW, connection.alias, shape, where),
        kind=SLOW,
        alias=connection.alias,
        sql=shape,
        call_site=where,
        hint="",
        last_ms=round(took_ms, 3),
        rows=None if error else _rows(cursor),
        in_transaction=connection.in_atomic_block,
        error=type(error).__name__ if error else "",
        unit=_named(unit),
        raw=(raw, params) if len(raw) <= _LONGEST_PLANNED and error is None else None,
    )
    _note(found, rows=found.rows, in_transaction=found.in_transaction, error=found.error or None)


def n_plus_one(
    alias: str, shape: str, site: str, repeats: int, total_ms: float, hint: str, unit: Unit
) -> None:
    found = Found(
        fingerprint=normal.fingerprint(N_PLUS_ONE, alias, shape, site),
        kind=N_PLUS_ONE,
        alias=alias,
        sql=shape,
        call_site=site,
        hint=hint,
        last_ms=round(total_ms, 3),
        statements=repeats,
        most=repeats,
        unit=_named(unit),
    )
    _note(found, count=repeats, hint=hint)


def families() -> Iterator[Metric]:
    names = {SLOW: "slow_queries", N_PLUS_ONE: "n_plus_one"}
    texts = {
        SLOW: "Statements that took longer than SLOW_QUERY_MS",
        N_PLUS_ONE: "Units of work that repeated a statement N_PLUS_ONE times",
    }
    counts = dict(findings.counts)
    for kind, name in names.items():
        family = CounterMetricFamily(f"brain_database_{name}", texts[kind], labels=["alias"])
        for (of_kind, alias), number in sorted(counts.items()):
            if of_kind == kind:
                family.add_metric([alias], number)
        yield family
    dropped = CounterMetricFamily(
        "brain_database_slow_dropped", "Findings that could not be stored", labels=[]
    )
    dropped.add_metric([], findings.dropped)
    yield dropped


def _note(found: Found, **more: Any) -> None:
    from . import flusher  # it stores what is found here

    findings.add(found)
    flusher.start()
    suppressed = findings.unsaid(found.fingerprint, monotonic())
    if suppressed is None:
        return
    kind, name, id = found.unit
    fields = {name: value for name, value in more.items() if value is not None and value != ""}
    if suppressed:
        fields["suppressed"] = suppressed
    if kind:
        fields |= {"unit_kind": kind, "unit": name, "unit_id": id}
    log.warning(
        "slow_query" if found.kind == SLOW else "n_plus_one",
        alias=found.alias,
        took_ms=found.last_ms,
        sql=found.sql[:_LOGGED_SQL],
        site=found.call_site,
        fingerprint=found.fingerprint,
        **fields,
    )


def _named(unit: Unit | None) -> tuple[str, str, str]:
    return (unit.kind, unit.name, unit.id) if unit is not None else ("", "", "")


def _rows(cursor: Any) -> int | None:
    """Where the engine says so: SQLite does not for what it reads."""
    number = getattr(cursor, "rowcount", -1)
    return number if isinstance(number, int) and number >= 0 else None


def _composed(sql: Any, connection: Any) -> str:
    """psycopg's sql.Composed."""
    as_string = getattr(sql, "as_string", None)
    return str(as_string(connection.connection) if as_string else sql)


def _forked() -> None:
    """A child begins anew: the parent stores what it found."""
    global findings
    findings = Findings()


os.register_at_fork(after_in_child=_forked)
