"""SQLite: pages copied within one read transaction while others write; put back as one write transaction."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import contents, files
from .dumps import Dumped, Replaced
from .files import Progress
from .manifest import RESTORED, BackupFailed, Contents, Manifest, differences, refuse

SUFFIX = "sqlite3"
_PAGES = 2000
_BUSY_S = 30.0


def version(connection: Any) -> str:
    return sqlite3.sqlite_version


def major(version: str) -> int:
    return 0  # the file format is the same since 2004


def account(connection: Any) -> str:
    return ""


def dump(connection: Any, path: Path, progress: Progress) -> Dumped:
    source_path = _path(connection)
    if not source_path.exists():
        raise BackupFailed(f"{source_path} does not exist: there is nothing to back up")
    try:
        return _dumped(source_path, path, progress)
    except sqlite3.Error as error:  # the disk is full, the database is damaged
        raise BackupFailed(f"{source_path} could not be copied: {error}") from error


def _dumped(source_path: Path, path: Path, progress: Progress) -> Dumped:
    with _opened(source_path) as source:
        # In WAL mode everything below sees the database of this moment, and writers go on.
        source.execute("BEGIN")
        source.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()  # the moment
        mode = source.execute("PRAGMA journal_mode").fetchone()[0]
        with _opened(path) as copy:
            source.backup(copy, pages=_PAGES, progress=_paged("dumping", progress), sleep=0.01)
            # One file, that is read without files beside it.
            copy.execute("PRAGMA journal_mode = DELETE")
        found = contents.sqlite(source, progress)
        source.execute("ROLLBACK")
    sha256, size = files.digest(path)
    notes = () if mode == "wal" else (f"journal_mode is {mode}: writers waited for the copy",)
    return Dumped(f"SQLite {sqlite3.sqlite_version}", sha256, size, found, notes)


def check(
    connection: Any, path: Path, known: Manifest, progress: Progress
) -> tuple[str, str, Contents | None]:
    """How it was verified, a remark, and what is in it. Raises BackupFailed."""
    found = _checked(path, progress)
    if known.contents is not None:
        refuse(differences(known.contents, found), path.name)
    return RESTORED, "", found


def replace(
    connection: Any, path: Path, known: Manifest, progress: Progress, *, keep_owners: bool
) -> Replaced:
    """The backup is read whole and compared before the first page is written."""
    found = _checked(path, progress)
    if known.contents is not None:
        refuse(differences(known.contents, found), path.name)
    target = _path(connection)
    connection.close()
    target.parent.mkdir(parents=True, exist_ok=True)
    is_new = not target.exists()
    with _opened(path, is_read_only=True) as source, _opened(target) as copy:
        if is_new:
            os.chmod(target, 0o600)
        _match_page_size(source, copy, target)
        try:
            # One transaction of the target: others see the old contents until it commits, and a kill takes it back.
            source.backup(copy, pages=_PAGES, progress=_paged("restoring", progress), sleep=0.05)
        except sqlite3.Error as error:
            raise BackupFailed(f"{target}: {error}; it is as it was") from error
        after = contents.sqlite(copy, progress)
    return Replaced(after)


def present(connection: Any) -> list[tuple[str, int]]:
    """The tables that a restore replaces, with their rows."""
    if not _path(connection).exists():
        return []
    with _opened(_path(connection), is_read_only=True) as source:
        names = source.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' "
            "AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
        ).fetchall()
        quoted = [(name, '"' + name.replace('"', '""') + '"') for (name,) in names]
        return [
            (name, source.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])  # noqa: S608  (quoted)
            for name, table in quoted
        ]


def _checked(path: Path, progress: Progress) -> Contents:
    try:
        with _opened(path, is_read_only=True) as copy:
            progress("checking integrity", 0, None)
            said = copy.execute("PRAGMA integrity_check").fetchone()[0]
            if said != "ok":
                raise BackupFailed(f"{path.name} is damaged: {said}")
            return contents.sqlite(copy, progress)
    except sqlite3.DatabaseError as error:
        raise BackupFailed(f"{path.name} is damaged: {error}") from error


def _match_page_size(source: sqlite3.Connection, copy: sqlite3.Connection, target: Path) -> None:
    """A WAL database takes pages of its own size only."""
    [ours], [theirs] = (one.execute("PRAGMA page_size").fetchone() for one in (source, copy))
    if ours != theirs and copy.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        try:
            copy.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.OperationalError as error:
            raise BackupFailed(
                f"{target} has pages of {theirs} bytes and the backup of {ours}: nobody else may have it open",
                "Stop the processes that use it, then restore again.",
            ) from error


def _path(connection: Any) -> Path:
    name = str(connection.settings_dict["NAME"])
    if connection.is_in_memory_db():
        raise BackupFailed("a database in memory has no file to back up or restore")
    return Path(name).absolute()


@contextlib.contextmanager
def _opened(path: Path, *, is_read_only: bool = False) -> Iterator[sqlite3.Connection]:
    uri = f"{path.absolute().as_uri()}{'?mode=ro' if is_read_only else ''}"
    try:
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)
    except sqlite3.Error as error:
        raise BackupFailed(f"{path} cannot be opened: {error}") from error
    with contextlib.closing(connection):
        yield connection


def _paged(step: str, progress: Progress) -> Any:
    """sqlite3 asks again for ever while another process has the lock: this gives up."""
    waiting_since: list[float] = []

    def paged(status: int, remaining: int, total: int) -> None:
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            waiting_since.append(time.monotonic())
            if waiting_since[-1] - waiting_since[0] > _BUSY_S:
                raise BackupFailed(
                    f"the database was locked for {_BUSY_S:.0f} s", "Try again when nobody writes for long."
                )
            return
        waiting_since.clear()
        progress(step, total - remaining, total)

    return paged
