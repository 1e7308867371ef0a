"""The database's clock: in a statement (`Clock`), and as this process knows it, from which what is relative counts.

read → carried on by this host's steady clock → read again when REFRESH_S have passed or this host's clock was set
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.db import connection
from django.db.models.functions import Now

from . import statements

REFRESH_S = 60.0
_SET_S = 0.5  # a clock that is slewed moves 0.03 s in REFRESH_S


class Clock(Now):
    """The database's clock in UTC, in a statement: what a row is compared with, so that no host's clock plays a part."""

    def as_mysql(self, compiler: Any, connection: Any, **extra: Any) -> tuple[str, Any]:
        # Django's Now() is CURRENT_TIMESTAMP there, in the time zone of the server, while columns are in UTC.
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **extra)

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> tuple[str, Any]:
        # As in statements/sqlite.py: the end of the present millisecond.
        at = "STRFTIME('%%%%Y-%%%%m-%%%%d %%%%H:%%%%M:%%%%f999', 'now')"
        return self.as_sql(compiler, connection, template=at, **extra)


class Reading(NamedTuple):
    """moment: the database's time when this host's steady and wall clocks stood so, in seconds."""

    moment: datetime
    steady_s: float
    wall_s: float

    def carried_to(self, steady_s: float, wall_s: float) -> datetime | None:
        """The database's time then; None when this reading says nothing about it any more.

        The two clocks move apart when the host's was set, and while it sleeps, when the steady one stands still.
        """
        passed_s = steady_s - self.steady_s
        is_fresh = passed_s < REFRESH_S and abs(wall_s - self.wall_s - passed_s) < _SET_S
        return self.moment + timedelta(seconds=passed_s) if is_fresh else None


_last: Reading | None = None


def now() -> datetime:
    """Never behind the database's clock (a millisecond on SQLite, whose statements round up), and ahead by a round trip at most.

    A DatabaseError is the caller's.
    """
    global _last
    if connection.vendor == "sqlite":  # its clock is this host's
        return datetime.now(UTC)
    steady_s, wall_s = time.monotonic(), time.time_ns() / 1e9
    known = _last.carried_to(steady_s, wall_s) if _last else None
    if known is None:
        known = read()
        _last = Reading(known, steady_s, wall_s)
    return known


def read() -> datetime:
    """Ask the database."""
    with connection.cursor() as cursor:
        found = statements.of(connection.vendor).now(cursor)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
