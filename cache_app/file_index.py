"""The index of a file cache: what there is, how much, and who was used last, in one SQLite file for all processes.

Reads take no lock and write nothing. Writers come one after the other: what `change` is given runs as one transaction.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from . import file_values
from .file_change import Change, Limits
from .file_connections import BUSY_S, Connection, Connections, cannot_open, is_unusable
from .file_directory import Directory
from .file_recovery import after_boot, make_index
from .file_rows import SELECT, Entry, digest, select_many

RECENCY_S = 1.0  # an entry that was used this short a time ago is not noted again
_READERS = 16
_LOOK_S = 0.02  # so long may a read answer from an index that somebody has just removed or replaced
_NOTES, _MOST_NOTES = 256, 4096  # uses that are written in one go, and that are kept where it cannot be done
_NOTES_S = 5.0  # written after so long, however few they are
_SWEEP_S, _SWEEP_FILES_S = 1.0, 60.0
_ASKED, _SCANNED = 200, 500  # rows of one statement
_BEHIND = b"\xff"  # no byte of UTF-8: behind every key that begins with the same text
_KEYS = """SELECT key FROM entries WHERE key >= ? AND key < ? AND (expires_at IS NULL OR expires_at > ?)
    ORDER BY key LIMIT ?"""
_ATTEMPTS = 5
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Usage:
    entries: int
    size_bytes: int


class Index:
    """Uses are noted in memory and written with the next change, or 256 of them or 5 s later: so late does another
    process learn of them, and a process that is killed forgets what it has not written."""

    def __init__(
        self,
        directory: Directory,
        limits: Limits,
        *,
        wall: Callable[[], float],
        count: Callable[[str, int], None],
    ) -> None:
        self.directory, self._limits, self._wall, self._count = directory, limits, wall, count
        self._readers = Connections(
            directory, partial(make_index, directory), limit=_READERS, look_every_s=_LOOK_S
        )
        self._writers = Connections(directory, partial(make_index, directory), limit=1)
        self._unusable = 0  # inode of an index that turned out to be corrupt
        self._is_checked = False  # for what a power failure may have left
        self.forget_uses()
        self._removed: list[str] = []  # files that the index still lists as spare
        self._sweep_at = self._sweep_files_at = 0.0

    # --- reading -----------------------------------------------------------------------------------------------------
    def find(self, key: bytes) -> Entry | None:
        now = self._wall()
        rows = self._rows(SELECT, (digest(key),))
        return self._used(Entry._make(rows[0]), key, now) if rows else None

    def find_many(self, keys: Sequence[bytes]) -> list[Entry | None]:
        """In their order."""
        now, rows = self._wall(), dict[int, Entry]()
        ids = [digest(key) for key in keys]
        for start in range(0, len(ids), _ASKED):
            some = ids[start : start + _ASKED]
            for row in self._rows(select_many(len(some)), some):
                rows[row[0]] = Entry._make(row)
        found = zip(keys, map(rows.get, ids), strict=True)
        return [None if entry is None else self._used(entry, key, now) for key, entry in found]

    def keys_from(self, start: bytes, prefix: bytes) -> list[bytes]:
        """Some of the live keys that begin with the prefix, in order, from `start` on: none at the end."""
        values = (max(start, prefix), prefix + _BEHIND, self._wall(), _SCANNED)
        return [row[0] for row in self._rows(_KEYS, values)]

    def usage(self) -> Usage:
        return Usage(*self._rows("SELECT entries, size FROM totals")[0])

    # --- writing -----------------------------------------------------------------------------------------------------
    def change(self, work: Callable[[Change], T]) -> T:
        """Run `work` in one transaction, make room where it asks for too much, and remove the files that it spared.

        Once more, if somebody put another index in this one's place meanwhile. Raises sqlite3.Error and OSError.
        """
        if not self._is_checked:
            self._is_checked = True
            self._check()
        for _ in range(_ATTEMPTS):
            connection = self._writers.take()
            result = self._worked(connection, work, BUSY_S)
            if self._counts(connection):
                return result
        raise OSError("the cache's index was replaced again and again")

    def write_uses(self) -> None:
        """If nobody is writing just now."""
        # Another process writes, or the disk is full: with the next ones, and a read does not fail for it.
        with contextlib.suppress(OSError, sqlite3.Error):
            self._worked(self._writers.take(0.0), lambda change: None, 0.0)

    def withdraw(self, files: Iterable[str]) -> None:
        """Remove files that were announced and did not get a row."""
        self._remove_files(files)

    def forget_uses(self) -> None:
        self._uses: dict[int, float] = {}
        self._noted_at = time.monotonic()

    def recover(self) -> None:
        """After an error that says that the index is unusable."""
        unusable, self._unusable = self._unusable, 0
        if unusable:
            make_index(self.directory, unusable)

    def close(self) -> None:
        self._readers.close()
        self._writers.close()

    # --- parts -------------------------------------------------------------------------------------------------------
    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        connection = self._readers.take()
        try:
            rows = connection.execute(statement, values).fetchall()
        except BaseException as error:
            self._failed(self._readers, connection, error)
            raise
        self._readers.give(connection)
        return rows

    def _worked(self, connection: Connection, work: Callable[[Change], T], wait_s: float) -> T:
        try:
            _begin(connection, wait_s)
            change = Change(connection, self._limits, self._wall())
            self._do_chores(change)
            result = work(change)
            change.make_room()
            change.close()
            connection.execute("COMMIT")
        except BaseException as error:
            self._failed(self._writers, connection, error)
            raise
        self._writers.give(connection)
        self._tidy(change)
        return result

    def _failed(self, lent_by: Connections, connection: Connection, error: BaseException) -> None:
        if is_unusable(error):
            self._unusable = connection.inode
        # A connection that goes on serves better than a new one, which needs room on a disk that may be full.
        if not isinstance(error, Exception) or is_unusable(error) or cannot_open(error):
            lent_by.drop(connection)
            return
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            lent_by.drop(connection)
        else:
            lent_by.give(connection)

    def _do_chores(self, change: Change) -> None:
        """What waited for somebody to write."""
        uses, self._uses = self._uses, {}
        self._noted_at = now = time.monotonic()
        if uses:
            change.used(uses)
        removed, self._removed = self._removed, []
        if removed:
            change.removed(removed)
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_S
            change.sweep()
        if now >= self._sweep_files_at:
            self._sweep_files_at = now + _SWEEP_FILES_S
            change.sweep_files()

    def _tidy(self, change: Change) -> None:
        self._remove_files(change.dropped)
        if change.evicted:
            self._count("evictions", change.evicted)
        if change.expired:
            self._count("expired", change.expired)

    def _remove_files(self, files: Iterable[str]) -> None:
        for file in files:
            with contextlib.suppress(OSError):  # it stays among the spare ones, and is tried again
                file_values.remove(self.directory.path(file))
                self._removed.append(file)

    def _counts(self, connection: Connection) -> bool:
        try:
            return connection.inode == self.directory.inode()
        except FileNotFoundError:
            return False

    def _check(self) -> None:
        connection = self._writers.take()
        try:
            after_boot(self.directory, connection)
        except BaseException as error:
            self._failed(self._writers, connection, error)
            raise
        self._writers.give(connection)

    def _used(self, entry: Entry, key: bytes, now: float) -> Entry | None:
        if not entry.is_live(key, now):
            return None
        if now - entry.used_at >= RECENCY_S:
            self._note_use(entry.id, now)
        return entry

    def _note_use(self, id: int, now: float) -> None:
        if len(self._uses) < _MOST_NOTES:
            self._uses[id] = now
        if len(self._uses) % _NOTES == 0 or time.monotonic() - self._noted_at >= _NOTES_S:
            self._noted_at = time.monotonic()
            self.write_uses()


def _begin(connection: Connection, wait_s: float) -> None:
    if wait_s == BUSY_S:
        connection.execute("BEGIN IMMEDIATE")
        return
    connection.execute(f"PRAGMA busy_timeout = {wait_s * 1000:.0f}")
    try:
        connection.execute("BEGIN IMMEDIATE")
    finally:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_S * 1000:.0f}")
