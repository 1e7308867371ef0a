"""The database goes away while jobs run, and comes back: that costs time, and no job."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from tests.drills.servers import Outage, postgresql_stopped, sqlite_locked

from .drill import drill

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

_AWAY_S, _QUICK_AWAY_S = 30.0, 8.0


@drill("database-stopped-postgresql")
def postgresql(rig: Rig) -> Outcome:
    return _away(rig, postgresql_stopped(rig.database_url), "PostgreSQL shut down at once")


@drill("database-stopped-sqlite", databases=("sqlite",))
def sqlite(rig: Rig) -> Outcome:
    return _away(rig, sqlite_locked(rig.database_url), "SQLite locked by another writer")


def _away(rig: Rig, broken: AbstractContextManager[None], how: str) -> Outcome:
    """Runs end meanwhile and are recorded late, or are run again; enqueue says clearly that it cannot store."""
    away_s = _QUICK_AWAY_S if rig.quick else _AWAY_S
    fleet = [rig.worker(), rig.worker("prefork", 2)]
    rig.enqueue(300)
    rig.progress(20)
    refused = 0
    with Outage(broken, away_s) as outage:
        while outage.lasts:
            refused += not rig.try_enqueue(10)
            time.sleep(0.5)
    rig.mended(outage.end)
    rig.try_enqueue(10)
    rig.finish()
    rig.claim(all(worker.runs for worker in fleet), "no worker ends for it")
    return rig.outcome(f"{how} for {away_s:.0f} s; {refused} enqueues refused meanwhile")
