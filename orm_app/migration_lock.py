"""One migrate at a time on a database: an advisory lock of the server, a file lock beside SQLite's file.

All three go with their holder: a killed process leaves nothing behind. MongoDB has no such lock: there it is a document
with a lease, which a killed process leaves behind until it has run out.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from . import mongo, mongo_lease

_POSTGRESQL_KEY = zlib.crc32(b"brain.migrate") & 0x7FFFFFFF  # advisory locks belong to one database already
_POLL_S = 0.2
_TELL_EVERY_S = 10.0

Tell = Callable[[str], None]


class LockNotFree(Exception):
    """Another migrate holds the lock for longer than we were told to wait."""


class CannotLock(Exception):
    """The lock's file cannot be made: the folder is not there, or not ours to write."""


class LockLost(Exception):
    """The connection that held the lock is not the one that migrates any more."""


class _ServerLock:
    """Asked for again and again instead of waited for: a waiting statement holds a snapshot, and the other one's
    CREATE INDEX CONCURRENTLY waits for every snapshot: both would wait forever."""

    take_sql = held_sql = free_sql = holder_sql = ""
    name: Any

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def takes(self) -> bool:
        return bool(self._ask(self.take_sql))

    def is_held(self) -> bool:
        return bool(self._ask(self.held_sql))

    def free(self) -> None:
        self._ask(self.free_sql)

    def holder(self) -> str:
        found = self._ask(self.holder_sql)
        return f"connection {found}" if found else "another process"

    def _ask(self, sql: str) -> Any:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, [self.name])
            row = cursor.fetchone()
        return row[0] if row else None


class _PostgreSQLLock(_ServerLock):
    name = _POSTGRESQL_KEY
    take_sql = "SELECT pg_try_advisory_lock(%s)"
    free_sql = "SELECT pg_advisory_unlock(%s)"
    # One bigint key is shown as two halves; ours fits into the lower one.
    _rows = (
        "FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = 0 AND objid = %s AND objsubid = 1 "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    held_sql = f"SELECT 1 {_rows} AND pid = pg_backend_pid()"
    holder_sql = f"SELECT pid {_rows}"


class _MySQLLock(_ServerLock):
    take_sql = "SELECT GET_LOCK(%s, 0)"
    held_sql = "SELECT IS_USED_LOCK(%s) = CONNECTION_ID()"
    free_sql = "SELECT RELEASE_LOCK(%s)"
    holder_sql = "SELECT IS_USED_LOCK(%s)"

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        # The server's locks are of all its databases, and a name has 64 characters.
        self.name = f"brain.migrate.{zlib.crc32(str(connection.settings_dict['NAME']).encode()):08x}"


class _FileLock:
    def __init__(self, path: str) -> None:
        self.path = path
        self._file: int | None = None

    def takes(self) -> bool:
        file, is_ours = self._opened()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return False
        if is_ours:
            os.ftruncate(file, 0)
            os.write(file, str(os.getpid()).encode())
        self._file = file
        return True

    def _opened(self) -> tuple[int, bool]:
        """And whether we may write into it: another user's can be locked all the same. Raises CannotLock."""
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644), True
        except OSError as error:
            with suppress(OSError):
                return os.open(self.path, os.O_RDONLY), False
            raise CannotLock(
                f"cannot open {self.path}: {error.strerror}. migrate locks a file beside SQLite's, which itself must "
                "write into that folder"
            ) from error

    def is_held(self) -> bool:
        return self._file is not None

    def free(self) -> None:
        # The file stays: whoever removes it lets two processes lock two files of the same name.
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def holder(self) -> str:
        with open(self.path) as file:
            return f"process {file.read() or 'unknown'}"


class Held:
    """The lock while it is ours. `check` before each migration."""

    def __init__(self, lock: Any = None) -> None:
        self._lock = lock

    def check(self) -> None:
        """Raises LockLost."""
        if self._lock is not None and not self._lock.is_held():
            raise LockLost(
                "the migration lock was lost: the connection was closed, or a transaction pooler stands before the "
                "database. Migrate over a direct connection. (MongoDB: its lease could not be renewed in time.)"
            )


_mine: set[tuple[int, str]] = set()  # (thread, alias): a migrate inside a migrate holds it already


@contextmanager
def held(
    connection: Any,
    *,
    wait_s: float,
    tell: Tell,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Held]:
    """Hold the database's migration lock. wait_s: how long to wait for another holder. Raises LockNotFree."""
    lock, mine = _lock(connection), (threading.get_ident(), connection.alias)
    if lock is None or mine in _mine:
        yield Held()
        return
    _take(lock, wait_s=wait_s, tell=tell, now=now, sleep=sleep)
    _mine.add(mine)
    try:
        yield Held(lock)
    finally:
        _mine.discard(mine)
        _free(lock, connection)


def _take(
    lock: Any, *, wait_s: float, tell: Tell, now: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    began = tell_next = now()
    while not lock.takes():
        waited = now() - began
        if waited >= wait_s:
            raise LockNotFree(
                f"another migrate ({lock.holder()}) holds the lock after {waited:.0f} s of waiting"
            )
        if began + waited >= tell_next:
            tell(f"Another migrate is running ({lock.holder()}): waiting for it, at most {wait_s:.0f} s.")
            tell_next = began + waited + _TELL_EVERY_S
        sleep(min(_POLL_S, wait_s - waited))


def _free(lock: Any, connection: Any) -> None:
    if isinstance(lock, _ServerLock) and (connection.connection is None or connection.needs_rollback):
        # Closed: the server has freed it. In a broken transaction nothing can be asked: it goes with the connection.
        if connection.connection is not None and not connection.in_atomic_block:
            connection.close()
        return
    lock.free()


def _lock(connection: Any) -> Any:
    if connection.vendor == "postgresql":
        return _PostgreSQLLock(connection)
    if connection.vendor == "mysql":
        return _MySQLLock(connection)
    if mongo.is_on(connection.alias):
        return mongo_lease.Lease(connection)
    if connection.vendor == "sqlite" and not connection.is_in_memory_db():
        return _FileLock(f"{os.path.abspath(connection.settings_dict['NAME'])}.migrate.lock")
    return None  # in memory: nobody else can see it
