"""What can be known of a SQLite file's lock: whether somebody writes now, and on Linux which process.

SQL does not say who. The lock is a byte range of a file, which the kernel lists in /proc/locks; the file itself must
not be opened for it: closing it would take this process's own locks away.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WAL_WRITE = 120  # the byte of the -shm file that a writer locks in WAL mode (SQLite's wal.c and os_unix.c)
_RESERVED = 0x40000001  # of the database file in the other modes
_MUCH_WAL = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Found:
    notes: list[str]
    facts: dict[str, Any]


def of(connection: Any) -> Found:
    name = str(connection.settings_dict["NAME"])
    with connection.cursor() as cursor:
        mode = cursor.execute("PRAGMA journal_mode").fetchone()[0]
        autocheckpoint = cursor.execute("PRAGMA wal_autocheckpoint").fetchone()[0]
    facts: dict[str, Any] = {"journal_mode": mode, "wal_autocheckpoint_pages": autocheckpoint}
    if connection.is_in_memory_db():
        return Found(["a database in memory: only this process uses it"], facts)
    facts["wal_bytes"] = _size(f"{name}-wal")
    facts["is_write_locked"] = _is_write_locked(name)
    holders = _holders(f"{name}-shm", _WAL_WRITE) if mode == "wal" else _holders(name, _RESERVED)
    facts["writers"] = [{"pid": pid, "process": _process(pid)} for pid in holders]
    return Found(_notes(facts, is_ours=connection.in_atomic_block), facts)


def _notes(facts: dict[str, Any], *, is_ours: bool) -> list[str]:
    notes = ["SQLite has one writer at a time and no list of who waits for it"]
    if facts["is_write_locked"]:
        who = ", ".join(f"process {one['pid']} ({one['process']})" for one in facts["writers"])
        notes.append(
            f"somebody writes now: {'this session itself' if is_ours else who or 'SQLite does not say who'}"
        )
    if facts["wal_bytes"] > _MUCH_WAL:
        notes.append(
            f"the -wal file has {facts['wal_bytes']:,} bytes: a long reader keeps it from being written back"
        )
    return notes


def _is_write_locked(name: str) -> bool:
    own = sqlite3.connect(name, timeout=0, isolation_level=None, uri=name.startswith("file:"))
    try:
        own.execute("BEGIN IMMEDIATE")
        own.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    finally:
        own.close()
    return False


def _holders(path: str, place: int) -> list[int]:
    """Processes that hold a write lock on that byte, as the kernel lists them; none where it lists nothing."""
    try:
        inode, lines = os.stat(path).st_ino, Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        parts = line.split()
        if len(parts) < 8 or parts[1] == "->" or "WRITE" not in parts:
            continue
        pid, where, start, end = parts[-4:]
        is_there = where.rpartition(":")[2] == str(inode) and int(start) <= place
        if is_there and (end == "EOF" or place <= int(end)):
            found.append(int(pid))
    return sorted(set(found))


def _process(pid: int) -> str:
    """Its short name: a command line may hold secrets."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
