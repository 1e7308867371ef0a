"""N+1: the same statement from the same line, N_PLUS_ONE times in one unit of work. Judged at the unit's end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from django.db import connections

from orm_app import work
from orm_app.conf import conf

from . import finding, hints, normal
from .call_sites import AWAITED, IN_BATCHES, UNKNOWN, Site
from .capture import Seen

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Repeated:
    alias: str
    sql: str  # normalised
    site: str
    count: int
    total_ms: float
    hint: str

    def __str__(self) -> str:
        where = self.site or "an unknown line"
        return f"{self.count} times from {where}: {self.sql[:300]} ({self.hint})"


@work.at_end
def judge(unit: work.Unit) -> None:
    """Logs and keeps what the unit repeated. A unit without repeats costs a look at its counts."""
    limit = conf().N_PLUS_ONE
    if limit is None or not unit.repeated:
        return
    if all(seen.count < limit for seen in list(unit.repeated.values())):
        return
    try:
        for one in of(unit, limit):
            finding.n_plus_one(one.alias, one.sql, one.site, one.count, one.total_ms, one.hint, unit)
    except Exception as error:  # noqa: BLE001  (the unit has ended well)
        log.warning("n_plus_one_not_noted", error=type(error).__name__)


def of(unit: work.Unit, limit: int) -> list[Repeated]:
    """The worst first."""
    tables = hints.tables_of(sql for _, sql in list(unit.repeated))
    found = [
        one
        for (alias, sql), seen in list(unit.repeated.items())
        if seen.count >= limit
        for one in _judged(alias, sql, seen, limit, tables)
    ]
    return sorted(found, key=lambda one: -one.count)


@contextmanager
def no_n_plus_one(at: int = 2) -> Iterator[None]:
    """For tests: AssertionError at the block's end when a line in it sent the same statement `at` times or more.

    Loops that mean it (bulk_create, chunk, upsert) are no finding.
    """
    unit = work.Unit("test", "no_n_plus_one", "")
    token = work._current.set(unit)
    try:
        yield
    finally:
        work._current.reset(token)
    found = of(unit, at)
    if found:
        raise AssertionError("N+1 queries:\n" + "\n".join(f"  {one}" for one in found))


def _judged(alias: str, sql: str, seen: Seen, limit: int, tables: set[str]) -> Iterator[Repeated]:
    counts: dict[Site, list[float]] = {}
    for site, (count, total_s) in list(seen.sites.items()):
        where = seen.awaited if site is AWAITED else site
        if where is not IN_BATCHES:
            sums = counts.setdefault(where, [0, 0.0])
            sums[0] += count
            sums[1] += total_s
    if not counts:
        return
    # The first of them was sent before anybody asked where: from the line that sent most of the others.
    first_s = max(0.0, seen.total_s - sum(total_s for _, total_s in seen.sites.values()))
    busiest = max(counts.values(), key=lambda sums: sums[0])
    busiest[0] += 1
    busiest[1] += first_s
    vendor = connections[alias].vendor
    for site, (number, total_s) in counts.items():
        if number >= limit:
            shape = normal.normalise(sql, vendor)
            line = "" if site is UNKNOWN else str(site)
            yield Repeated(alias, shape, line, int(number), total_s * 1000, hints.of(shape, tables))
