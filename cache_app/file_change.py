"""One change of a file cache's index: a transaction that knows the totals and keeps to the limits."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .file_rows import INSERT, SELECT, UPDATE, Entry, digest

ROOM = 0.9  # of the limits: where there was too much, so much stays
_AT_ONCE = 500  # entries removed for that in one transaction; more only until the limits hold
_SWEPT = 100
_LEFT_AFTER_S = 600.0  # no write takes so long: its file is what a crash has left
_SWEPT_SINCE = 0.0  # stands in a spare file's row from the moment it is removed for having been left
Row = tuple[int, int, str | None]  # id, size, file


class Interrupted(Exception):
    """The file of a value was taken for one that a crash had left: its writer stood still for too long."""


@dataclass(frozen=True, slots=True)
class Limits:
    size_bytes: int
    entries: int


class Change:
    """Lives inside a write transaction. `dropped` are files to remove once it is committed."""

    def __init__(self, connection: sqlite3.Connection, limits: Limits, now: float) -> None:
        self._run, self._many = connection.execute, connection.executemany
        self._limits, self.now = limits, now
        self._before: tuple[int, int, int] = self._run(
            "SELECT size, entries, version_us FROM totals"
        ).fetchone()
        self._size: int
        self._entries: int
        self._version_us: int
        self._size, self._entries, self._version_us = self._before
        self._put_ids: set[int] = set()
        self.dropped: list[str] = []
        self.evicted = self.expired = 0

    # --- entries -----------------------------------------------------------------------------------------------------
    def find(self, key: bytes) -> Entry | None:
        row = self._run(SELECT, (digest(key),)).fetchone()
        if row is None:
            return None
        entry = Entry._make(row)
        return entry if entry.is_live(key, self.now) else None

    def put(self, entry: Entry) -> None:
        """In place of what is under its digest. Raises Interrupted where its file may be gone."""
        if entry.file is not None:
            taken = self._run("DELETE FROM spare WHERE file = ? AND since > ?", (entry.file, _SWEPT_SINCE))
            if not taken.rowcount:
                raise Interrupted
        old = self._run("SELECT size, file FROM entries WHERE id = ?", (entry.id,)).fetchone()
        if old is not None and not self._run(UPDATE, entry).rowcount:  # another key of the same digest
            self._run("DELETE FROM entries WHERE id = ?", (entry.id,))
            self._run(INSERT, entry)
        elif old is None:
            self._run(INSERT, entry)
        self._put_ids.add(entry.id)
        self._size += entry.size
        self._entries += 1
        if old is not None:
            self._gone([old])

    def delete(self, ids: Iterable[int]) -> None:
        for id in ids:
            old = self._run("SELECT size, file FROM entries WHERE id = ?", (id,)).fetchone()
            if old is not None:
                self._run("DELETE FROM entries WHERE id = ?", (id,))
                self._gone([old])

    def delete_lost(self, entry: Entry) -> None:
        """An entry whose value cannot be read, unless somebody has written another one."""
        same = "SELECT 1 FROM entries WHERE id = ? AND file IS ? AND checksum = ?"
        if self._run(same, (entry.id, entry.file, entry.checksum)).fetchone() is not None:
            self.delete([entry.id])

    def end_at(self, entry: Entry, expires_at: float | None) -> None:
        self._run(
            "UPDATE entries SET expires_at = ?, used_at = ? WHERE id = ?", (expires_at, self.now, entry.id)
        )

    def used(self, uses: Mapping[int, float]) -> None:
        rows = [(at, id, at) for id, at in list(uses.items())]
        self._many("UPDATE entries SET used_at = ? WHERE id = ? AND used_at < ?", rows)

    def next_version_us(self, least: int = 0) -> int:
        """Higher than every one before, even where the clock was set back and the old number was evicted."""
        self._version_us = max(round(self.now * 1e6), self._version_us + 1, least)
        return self._version_us

    # --- files -------------------------------------------------------------------------------------------------------
    def announce(self, files: Iterable[str]) -> None:
        """Files that are going to be written: until a row needs them they are spare."""
        self._many("INSERT OR REPLACE INTO spare VALUES (?, ?)", [(file, self.now) for file in files])

    def discard(self, files: Iterable[str]) -> None:
        """Announced files that are not needed after all."""
        self.dropped += files

    def removed(self, files: Iterable[str]) -> None:
        """Files that do not exist any more."""
        self._many("DELETE FROM spare WHERE file = ?", [(file,) for file in files])

    # --- room --------------------------------------------------------------------------------------------------------
    def sweep(self) -> None:
        """Some of the entries whose time is over."""
        ended = "SELECT id, size, file FROM entries WHERE expires_at <= ? ORDER BY expires_at LIMIT ?"
        self.expired += self._remove(self._run(ended, (self.now, _SWEPT)).fetchall())

    def sweep_files(self) -> None:
        """Some of the files that killed processes have left."""
        left = "SELECT file FROM spare WHERE since NOT BETWEEN ? AND ? LIMIT ?"
        rows = self._run(left, (self.now - _LEFT_AFTER_S, self.now + _LEFT_AFTER_S, _SWEPT)).fetchall()
        # From this moment on a writer that only stood still can not give its file a row.
        self._many("UPDATE spare SET since = ? WHERE file = ?", [(_SWEPT_SINCE, file) for (file,) in rows])
        self.dropped += [file for (file,) in rows]

    def make_room(self) -> None:
        """Where the limits are passed: what is over, then what was used longest ago, down to 90 % of them."""
        if self._fits():
            return
        self.sweep()
        while not self._fits() or (self.evicted < _AT_ONCE and not self._fits(ROOM)):
            rows = self._oldest()
            if rows:
                self.evicted += self._remove(rows)
            elif self._put_ids and not self._fits():
                self._put_ids.clear()  # nothing else is left: many were put at once, and they are too many
            else:
                return

    def close(self) -> None:
        """Note the totals."""
        now = self._size, self._entries, self._version_us
        if now != self._before:
            self._run("UPDATE totals SET size = ?, entries = ?, version_us = ?", now)

    # --- parts -------------------------------------------------------------------------------------------------------
    def _fits(self, share: float = 1.0) -> bool:
        return self._size <= self._limits.size_bytes * share and self._entries <= self._limits.entries * share

    def _oldest(self) -> list[Row]:
        """The next ones to go; never what this change has put."""
        oldest = "SELECT id, size, file FROM entries ORDER BY used_at LIMIT ?"
        size, entries, chosen = self._size, self._entries, []
        for row in self._run(oldest, (_SWEPT,)).fetchall():
            if size <= self._limits.size_bytes * ROOM and entries <= self._limits.entries * ROOM:
                break
            if row[0] not in self._put_ids:
                chosen.append(row)
                size, entries = size - row[1], entries - 1
        return chosen

    def _remove(self, rows: list[Row]) -> int:
        self._many("DELETE FROM entries WHERE id = ?", [(id,) for id, _, _ in rows])
        self._gone([(size, file) for _, size, file in rows])
        return len(rows)

    def _gone(self, rows: list[tuple[int, str | None]]) -> None:
        self._size -= sum(size for size, _ in rows)
        self._entries -= len(rows)
        files = [file for _, file in rows if file is not None]
        if files:
            self.announce(files)
            self.dropped += files
