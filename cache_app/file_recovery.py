"""A new index where it is lost or corrupt, and order among the files after a power failure: the times that files are listed.

Values in files are found again. Small values stood in the index itself and are gone with it: a cache may lose them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator

import structlog

from . import file_values
from .file_connections import BUSY_S, SCHEMA_VERSION, connect, is_unusable
from .file_directory import Directory, boot
from .file_rows import INSERT, SCHEMA, Entry, digest, size_of

log = structlog.get_logger(__name__)


def make_index(directory: Directory, unusable: int = 0) -> None:
    """Where there is none that works; `unusable` is the inode of one that does not.

    Raises ImproperlyConfigured, OSError and sqlite3.Error.
    """
    directory.make()
    with directory.recovering(BUSY_S):
        if _is_usable(directory, unusable):  # by another process, while we waited
            return
        path = directory.new_index()
        entries = list(_found(directory))
        _fill(path, entries)
        directory.point_to(path)
        directory.clean()
    if unusable or entries:
        log.warning("cache_index_rebuilt", location=directory.location, entries=len(entries))


def after_boot(directory: Directory, connection: sqlite3.Connection) -> None:
    """Once after the machine started: remove the files that no row knows.

    A power failure may undo the last transactions, and with them what they knew of files.
    """
    running = boot()
    if not running or _boot_of(connection) == running:
        return
    with directory.recovering(BUSY_S):
        if _boot_of(connection) == running:
            return
        # Listed first, asked for afterwards: every file is announced in the index before it is made.
        for file in {name.removesuffix(".tmp") for name in directory.files()}:
            if not _is_known(connection, file):
                file_values.remove(directory.path(file))
        connection.execute("UPDATE totals SET boot = ?", (running,))


def _boot_of(connection: sqlite3.Connection) -> str:
    return str(connection.execute("SELECT boot FROM totals").fetchone()[0])


def _is_known(connection: sqlite3.Connection, file: str) -> bool:
    asked = (
        "SELECT EXISTS (SELECT 1 FROM entries WHERE file = ?) OR EXISTS (SELECT 1 FROM spare WHERE file = ?)"
    )
    return bool(connection.execute(asked, (file, file)).fetchone()[0])


def _is_usable(directory: Directory, unusable: int) -> bool:
    try:
        connection = connect(directory)
    except FileNotFoundError:
        return False
    except sqlite3.Error as error:
        if is_unusable(error):
            return False
        raise
    connection.close()
    return connection.inode != unusable


def _fill(path: str, entries: list[Entry]) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN")
        for statement in SCHEMA:
            connection.execute(statement)
        connection.executemany(INSERT, entries)
        connection.execute(
            "INSERT INTO totals SELECT 1, coalesce(sum(size), 0), count(*), 0, ? FROM entries", (boot(),)
        )
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        os.unlink(path)
        raise
    finally:
        connection.close()


def _found(directory: Directory) -> Iterator[Entry]:
    """What the files say, the newest of each key. The rest is removed."""
    newest: dict[bytes, tuple[str, file_values.Head]] = {}
    for file in list(directory.files()):
        path = directory.path(file)
        head = None if file.endswith(".tmp") else file_values.head(path)
        known = newest.get(head.key) if head is not None else None
        if head is None or (known is not None and known[1].written_at >= head.written_at):
            file_values.remove(path)
            continue
        if known is not None:
            file_values.remove(directory.path(known[0]))
        newest[head.key] = file, head
    return (_entry(file, head) for file, head in newest.values())


def _entry(file: str, head: file_values.Head) -> Entry:
    size = size_of(head.key, head.size_bytes)
    return Entry(
        digest(head.key), head.key, head.expires_at, head.written_at, size, head.checksum, file, None
    )
