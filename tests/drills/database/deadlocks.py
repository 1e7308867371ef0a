"""A thousand real deadlocks, by the server's own count."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .banks import open_, settled
from .drill import drill
from .servers import ENGINES, Server

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

PAIRS, ACCOUNTS = 4, 8


def _deadlocks(rig: Rig, kind: str) -> Outcome:
    """Each is retried by `db.transaction(retry=…)`, and every cent is where the ledger says."""
    rounds = 60 if rig.quick else 500
    url, server = rig.url(kind)
    assert server is not None
    rig.fill(url, ACCOUNTS)
    if kind == "postgresql":  # it looks for a deadlock after so long
        server.ask("ALTER SYSTEM SET deadlock_timeout = '5ms'")
        server.ask("SELECT pg_reload_conf()")
    opening, before = open_(server), counted(server)
    seen = [
        rig.work("deadlocks", mode, str(rounds), str(PAIRS), url=f"{url}?pool_max_size=8")
        for mode in ("sync", "async")
    ]
    done = sum(one["rounds"] for one in seen)
    happened = _reached(server, before + done) - before
    retried = sum(one["runs"] for one in seen) - 2 * done
    failed = sum(one.get("failed", 0) for one in seen)
    ids = [
        f"{a}{pair}-{side}-{n}"
        for a in ("", "a")
        for pair in range(PAIRS)
        for side in (0, 1)
        for n in range(rounds // PAIRS)
    ]
    seconds = sum(one["seconds"] for one in seen)
    rig.claim(happened >= done, f"the server counts {happened} deadlocks, and {done} were wanted")
    rig.claim(retried >= done, f"only {retried} further runs")
    lost, duplicated = settled(rig, server, opening, ids)
    note = f"{happened:,} deadlocks by the server's count, {retried:,} further runs, {2 * done:,} transfers in {seconds:.0f} s"
    return rig.outcome(note, lost=lost, duplicated=duplicated, failed=failed)


def counted(server: Server) -> int:
    if server.kind == "postgresql":
        return int(
            server.ask("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")[0][0]
        )
    return int(server.ask("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")[0][1])


def _reached(server: Server, wanted: int) -> int:
    """PostgreSQL's sessions report theirs a moment later."""
    deadline = time.monotonic() + 5
    while counted(server) < wanted and time.monotonic() < deadline:
        time.sleep(0.2)
    return counted(server)


def _register(kind: str) -> None:
    @drill(f"deadlocks-{kind}", full_s=600)
    def hold(rig: Rig) -> Outcome:
        return _deadlocks(rig, kind)


for _kind in ENGINES:
    _register(_kind)
