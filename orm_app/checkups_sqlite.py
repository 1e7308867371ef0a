"""What there is to look at in a SQLite file. Each look gets a cursor that is bounded in time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from .checkup_findings import BAD, OK, WARN, Finding, above
from .limited import rows

_BIGGEST = 10
_MUCH_WAL = 64 * 1024 * 1024


def journal(cursor: Any) -> Iterator[Finding]:
    mode = _pragma(cursor, "journal_mode")
    if mode == "memory":  # a database in memory
        yield Finding("journal", OK, "journal_mode is memory", value=mode)
    elif mode != "wal":
        hint = "Build the entry from a sqlite: URL: it sets WAL, with which readers and the writer do not wait for each other."
        yield Finding("journal", WARN, f"journal_mode is {mode}", hint, mode)
    else:
        yield Finding("journal", OK, "journal_mode is wal", value=mode)


def wal(cursor: Any) -> Iterator[Finding]:
    path = _path(cursor)
    if not path:
        return
    size = os.stat(f"{path}-wal").st_size if os.path.exists(f"{path}-wal") else 0
    hint = "A reader that stays open keeps it from being written back: see `database locks`."
    yield above("wal", size, f"the -wal file has {size:,} bytes", hint, warn=_MUCH_WAL, bad=_MUCH_WAL * 16)


def space(cursor: Any) -> Iterator[Finding]:
    pages, free = int(_pragma(cursor, "page_count")), int(_pragma(cursor, "freelist_count"))
    part = free / max(1, pages)
    text = f"{part:.0%} of the file is free space inside it"
    is_big = pages * int(_pragma(cursor, "page_size")) > 100 * 1024 * 1024
    yield above("space", part, text, "VACUUM gives it back.", warn=0.5 if is_big else 2)
    if path := _path(cursor):
        disk = os.statvfs(os.path.dirname(os.path.abspath(path)))
        left = disk.f_bavail * disk.f_frsize
        text = f"{left // 2**20:,} MiB are left on its disk"
        level = BAD if left < 2**27 else WARN if left < 2**30 else OK
        yield Finding(
            "disk", level, text, "Make room: SQLite cannot write without." if level != OK else "", left
        )


def foreign_keys(cursor: Any) -> Iterator[Finding]:
    is_on = int(_pragma(cursor, "foreign_keys")) == 1
    text = f"foreign keys are {'checked' if is_on else 'not checked'}"
    yield Finding(
        "foreign_keys", OK if is_on else WARN, text, "" if is_on else "PRAGMA foreign_keys = ON.", is_on
    )


def integrity(cursor: Any) -> Iterator[Finding]:
    cursor.execute("PRAGMA quick_check(5)")
    found = [str(row[0]) for row in cursor.fetchall()]
    if found == ["ok"]:
        yield Finding("integrity", OK, "the file is whole (quick_check)")
    else:
        hint = "Stop writing, keep a copy of the files, and restore the last backup."
        yield Finding("integrity", BAD, "; ".join(found)[:500], hint)


def sizes(cursor: Any) -> tuple[int, list[tuple[str, int | None, int | None]]]:
    total = int(_pragma(cursor, "page_count")) * int(_pragma(cursor, "page_size"))
    names = [row["name"] for row in rows(cursor, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    tables: list[tuple[str, int | None, int | None]] = [
        (name, _count(cursor, name), None) for name in names if not name.startswith("sqlite_")
    ]
    return total, sorted(tables, key=lambda table: -(table[1] or 0))[:_BIGGEST]


def _count(cursor: Any, table: str) -> int | None:
    """The last key, which SQLite knows at once: no less than the rows, unless keys are chosen by hand."""
    quoted = '"' + table.replace('"', '""') + '"'
    try:
        cursor.execute(f"SELECT max(rowid) FROM {quoted}")  # noqa: S608
        value = cursor.fetchone()[0]
        return int(value or 0)
    except Exception:  # noqa: BLE001  (a table without rowid, a virtual one)
        return None


def _pragma(cursor: Any, name: str) -> Any:
    cursor.execute(f"PRAGMA {name}")
    found = cursor.fetchone()
    return found[0] if found else 0


def _path(cursor: Any) -> str:
    """Of the file; "" for a database in memory."""
    cursor.execute("PRAGMA database_list")
    return next((str(row[2]) for row in cursor.fetchall() if row[1] == "main"), "")


LOOKS = (journal, wal, space, foreign_keys)
