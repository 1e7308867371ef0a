"""The rows of a file cache's index: their shape, their statements, and what an entry counts. Pure."""

from __future__ import annotations

import zlib
from hashlib import blake2b
from typing import NamedTuple

IN_ROW_BYTES = (
    32 * 2**10
)  # measured: up to here a row is read and written two to four times as fast as a file
OVERHEAD_BYTES = 112  # what SQLite's pages take for an entry besides key and value

# id: digest of the key. Two keys with one digest (once in 2^63 pairs) displace each other; neither is read as the other.
# file: where the value stands, if not in payload. used_at is late by up to file_index.RECENCY_S, see there.
# spare: files that no row needs, because they are still being written, or are being removed: what a crash leaves is here.
SCHEMA = (
    """CREATE TABLE entries (
        id INTEGER PRIMARY KEY, key BLOB NOT NULL, expires_at REAL, used_at REAL NOT NULL,
        size INTEGER NOT NULL, checksum INTEGER NOT NULL, file TEXT, payload BLOB)""",
    "CREATE INDEX entries_by_key ON entries (key)",
    "CREATE INDEX entries_by_use ON entries (used_at)",
    "CREATE INDEX entries_by_end ON entries (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE TABLE spare (file TEXT PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID",
    """CREATE TABLE totals (
        only INTEGER PRIMARY KEY CHECK (only = 1), size INTEGER NOT NULL, entries INTEGER NOT NULL,
        version_us INTEGER NOT NULL, boot TEXT NOT NULL)""",
)
COLUMNS = "id, key, expires_at, used_at, size, checksum, file, payload"
INSERT = f"INSERT INTO entries ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 (constants)
# Without id and key: an index of a column that is set is written, whether the value changes or not.
UPDATE = (
    "UPDATE entries SET expires_at = ?3, used_at = ?4, size = ?5, checksum = ?6, file = ?7, payload = ?8"
    " WHERE id = ?1 AND key = ?2"
)
SELECT = f"SELECT {COLUMNS} FROM entries WHERE id = ?"  # noqa: S608


class Entry(NamedTuple):
    """One row. Times are seconds since the epoch; expires_at None = for ever."""

    id: int
    key: bytes
    expires_at: float | None
    used_at: float
    size: int  # what it counts towards MAX_BYTES
    checksum: int
    file: str | None
    payload: bytes | None

    def is_live(self, key: bytes, now: float) -> bool:
        return self.key == key and (self.expires_at is None or self.expires_at > now)

    def is_whole(self) -> bool:
        """Whether the payload in the row is what was written. Never raises: a damaged page can hold anything."""
        return type(self.payload) is bytes and checksum_of(self.key, self.payload) == self.checksum


def encoded(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def digest(key: bytes) -> int:
    """64 bits with a sign, SQLite's integer."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big", signed=True)


def size_of(key: bytes, value_bytes: int) -> int:
    return len(key) + value_bytes + OVERHEAD_BYTES


def checksum_of(key: bytes, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(key))


def select_many(count: int) -> str:
    return f"SELECT {COLUMNS} FROM entries WHERE id IN ({', '.join('?' * count)})"  # noqa: S608
