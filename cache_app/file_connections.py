"""SQLite connections of this process to the index of a file cache: few, shared by its threads, never carried over a fork.

A connection that lives through a fork gives the child locks which it does not hold, and whoever closes last removes
the other's write-ahead log (sqlite.org/howtocorrupt.html, 2.6). So all of them are closed before this process forks.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable
from urllib.parse import quote

from .file_directory import Directory

SCHEMA_VERSION = 1
BUSY_S = 5.0  # for how long another process's transaction, or this process's own threads, are waited for
_JOURNAL_BYTES = 16 * 2**20  # what stays of a write-ahead log that one big transaction made long
_ours: weakref.WeakSet[Connections] = weakref.WeakSet()


class Unusable(sqlite3.DatabaseError):
    """The index is not one of ours."""


class Connection(sqlite3.Connection):
    inode: int  # of the index when it was opened: another one may have taken its place since


class Connections:
    """Lends at most `limit` connections at a time; `limit` = 1 is a lock as well.

    recover: called where there is no usable index, with the inode of the one that is not (0: there is none).
    """

    def __init__(self, directory: Directory, recover: Callable[[int], None], *, limit: int) -> None:
        self._directory, self._recover, self._limit = directory, recover, limit
        self._gate = threading.Condition(threading.Lock())
        self._idle: list[Connection] = []
        self._taken = self._forks = 0
        _ours.add(self)

    def take(self, wait_s: float = BUSY_S) -> Connection:
        """Raises TimeoutError where others hold all of them, OSError and sqlite3.Error where it cannot be opened."""
        with self._gate:
            if not self._is_free() and not self._gate.wait_for(self._is_free, wait_s):
                raise TimeoutError(f"no connection to the cache's index within {wait_s:g} s")
            self._taken += 1
            connection = self._idle.pop() if self._idle else None
        try:
            return self._current(connection)
        except BaseException:
            self._gone()
            raise

    def give(self, connection: Connection) -> None:
        with self._gate:
            self._idle.append(connection)
            self._taken -= 1
            self._gate.notify()

    def drop(self, connection: Connection) -> None:
        """Instead of `give`, after an error: closing it undoes its transaction."""
        try:
            connection.close()
        finally:
            self._gone()

    def close(self) -> None:
        with self._gate:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # --- parts -------------------------------------------------------------------------------------------------------
    def _is_free(self) -> bool:
        return self._taken < self._limit and not self._forks

    def _gone(self) -> None:
        with self._gate:
            self._taken -= 1
            self._gate.notify()

    def _current(self, connection: Connection | None) -> Connection:
        """One to the index that counts now."""
        try:
            inode = self._directory.inode()
        except FileNotFoundError:
            inode = 0
        if connection is not None:
            if connection.inode == inode:
                return connection
            connection.close()
        for _ in range(3):
            try:
                if inode:
                    return connect(self._directory)
            except FileNotFoundError:
                inode = 0
            except sqlite3.Error as error:
                if not is_unusable(error):
                    raise
            self._recover(inode)
            inode = self._directory.inode()
        return connect(self._directory)

    # --- forks -------------------------------------------------------------------------------------------------------
    def before_fork(self) -> None:
        with self._gate:
            self._forks += 1
            # Only what a statement is just running on is missed, after BUSY_S: the child then leaves it alone.
            self._gate.wait_for(lambda: self._taken == 0, BUSY_S)
        self.close()

    def after_fork(self) -> None:
        with self._gate:
            self._forks -= 1
            self._gate.notify_all()

    def in_child(self) -> None:
        """Nobody but this thread is here, whoever held the lock."""
        self._gate = threading.Condition(threading.Lock())
        self._idle, self._taken, self._forks = [], 0, 0


def connect(directory: Directory) -> Connection:
    """Raises FileNotFoundError, or Unusable and other sqlite3.Error, and never makes an index."""
    try:
        inode, path = directory.inode(), directory.index()
    except OSError as error:
        if error.errno == errno.EINVAL:  # a file where the link to the index was: a copy of a directory, say
            raise Unusable("the cache's index is no link") from error
        raise
    connection = sqlite3.connect(
        f"file:{quote(path)}?mode=rw",
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=False,
        factory=Connection,
    )
    try:
        if connection.execute("PRAGMA user_version").fetchone() != (SCHEMA_VERSION,):
            raise Unusable("the cache's index has no entries")
        # NORMAL: a commit does not wait for the disk. A power failure loses the last ones, and never the order.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
    except BaseException:
        connection.close()
        raise
    connection.inode = inode
    return connection


def is_unusable(error: BaseException) -> bool:
    """Whether only a new index helps."""
    code = getattr(error, "sqlite_errorcode", 0)
    return (
        isinstance(error, Unusable)
        or code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        or code == sqlite3.SQLITE_IOERR_SHORT_READ
        or (isinstance(error, sqlite3.OperationalError) and str(error).startswith("no such"))
    )


def _before_fork() -> None:
    for connections in list(_ours):
        connections.before_fork()


def _after_fork() -> None:
    for connections in list(_ours):
        connections.after_fork()


def _in_child() -> None:
    for connections in list(_ours):
        connections.in_child()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
