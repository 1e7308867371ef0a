"""Serializable transfers between accounts: nothing is lost, and nothing is made."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .drill import drill
from .servers import ENGINES, Server
from .verdict import Transfer, books

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

CLIENTS, PROCESSES, ACCOUNTS = 16, 4, 20


class File:
    """SQLite's file, asked as a server is."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=20)) as connection:
            return connection.execute(sql).fetchall()


Asked = Server | File


def _bank(rig: Rig, kind: str, mode: str) -> Outcome:
    """16 clients in four processes (threads, or tasks), serializable. The sum of all accounts stays to the cent, and each
    balance is what the ledger's rows make of it."""
    url, server = rig.url(kind)
    asked: Asked = server or File(rig.home / "drill.sqlite3")
    rig.fill(url, ACCOUNTS)
    opening = open_(asked)
    transfers = 20 if rig.quick else 200
    if kind != "sqlite":
        url += "?pool_max_size=4"
    began = time.monotonic()
    each = CLIENTS // PROCESSES
    working = [
        rig.start("worker", "bank", mode, f"p{number}", str(each), str(transfers), str(ACCOUNTS), url=url)
        for number in range(PROCESSES)
    ]
    seen = [rig.finish(process) for process in working]
    seconds = time.monotonic() - began
    committed = [id_ for one in seen for id_ in one["committed"]]
    failed = sum(one["failed"] for one in seen)
    runs = sum(one["runs"] for one in seen)
    wanted = CLIENTS * transfers
    rig.claim(
        len(committed) + failed == wanted, f"{len(committed)} + {failed} of {wanted} transfers have ended"
    )
    lost, duplicated = settled(rig, asked, opening, committed)
    note = f"{len(committed):,} transfers, {runs - wanted:,} further runs, {seconds:.0f} s"
    return rig.outcome(note, lost=lost, duplicated=duplicated, failed=failed)


def open_(asked: Asked) -> dict[int, int]:
    return {int(key): int(cents) for key, cents in asked.ask("SELECT id, cents FROM bank_account")}


def settled(rig: Rig, asked: Asked, opening: dict[int, int], committed: Iterable[str]) -> tuple[int, int]:
    """(lost, duplicated), with a claim for everything that does not add up."""
    rows = asked.ask("SELECT id, source, target, cents FROM bank_transfer")
    found = books(opening, (Transfer(*row) for row in rows), open_(asked), committed)
    rig.claim(not found.gap_cents, f"{found.gap_cents} cents came from nowhere")
    rig.claim(not found.wrong, f"{len(found.wrong)} balances: {'; '.join(found.wrong[:3])}")
    return found.missing + len(found.wrong), found.unknown


def _register(kind: str, mode: str) -> None:
    @drill(f"bank-{kind}-{mode}", quick_s=180, full_s=400)
    def hold(rig: Rig) -> Outcome:
        return _bank(rig, kind, mode)


for _kind in (*ENGINES, "sqlite"):
    for _mode in ("sync", "async"):
        _register(_kind, _mode)
