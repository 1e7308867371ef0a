"""SQLite connections of this process to the index of a file cache: few, shared by its threads, never carried over a fork.

A connection that lives through a fork gives the child locks which it does not hold, and whoever closes last removes
the other's write-ahead log (sqlite.org/howtocorrupt.html, 2.6). So all of them are closed before this process forks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from urllib.parse import quote

from .file_directory import Directory

SCHEMA_VERSION = 1
BUSY_S = 5.0  # for how long another process's transaction, or this process's own threads, are waited for
# The write-ahead log goes into the index after so many pages (16 MiB), which waits for the disk. SQLite's own 1000
# mean a wait every 150 writes; measured: 4000 make a write of 100 bytes three times as fast.
_LOG_PAGES = 4000
_LOG_BYTES = 32 * 2**20  # what stays of a log that one big transaction made long
_ours: weakref.WeakSet[Connections] = weakref.WeakSet()


class Unusable(sqlite3.DatabaseError):
    """The index is not one of ours."""


class Connection(sqlite3.Connection):
    inode: int  # of the index when it was opened: another one may have taken its place since


class _Waiter:
    """Somebody who gets the next connection that is given back: in turn, so that nobody waits for ever."""

    __slots__ = ("connection", "has_come")

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.has_come = threading.Lock()
        self.has_come.acquire()


class Connections:
    """Lends at most `limit` connections at a time; `limit` = 1 is a lock as well.

    recover: called where there is no usable index, with the inode of the one that is not (0: there is none).
    look_every_s: how often it is looked whether another index has taken this one's place; 0 = every time.
    """

    def __init__(
        self, directory: Directory, recover: Callable[[int], None], *, limit: int, look_every_s: float = 0.0
    ) -> None:
        self._directory, self._recover, self._limit = directory, recover, limit
        self._look_every_s, self._looked_at, self._inode = look_every_s, -1e9, 0
        self._start()
        _ours.add(self)

    def take(self, wait_s: float = BUSY_S) -> Connection:
        """Raises TimeoutError where others hold all of them, OSError and sqlite3.Error where it cannot be opened."""
        slot = self._slot(wait_s)
        try:
            return self._current(slot)
        except BaseException:
            self._return(None)
            raise

    def give(self, connection: Connection) -> None:
        self._return(connection)

    def drop(self, connection: Connection) -> None:
        """Instead of `give`, after an error: closing it undoes its transaction."""
        try:
            connection.close()
        finally:
            self._return(None)

    def close(self) -> None:
        """Those that nobody is using."""
        for _ in range(self._limit):
            with contextlib.suppress(IndexError):
                connection = self._slots.pop(0)
                if connection is not None:
                    connection.close()
                self._return(None)

    # --- parts -------------------------------------------------------------------------------------------------------
    def _start(self) -> None:
        # A slot is an open connection, or the right to open one. `pop` and `append` are one step of C code each: no
        # lock is needed where nobody waits.
        self._slots: list[Connection | None] = [None] * self._limit
        self._waiters: deque[_Waiter] = deque()
        self._gate = threading.Lock()
        self._held: dict[int, int] = {}  # slots, by the thread that forks

    def _slot(self, wait_s: float) -> Connection | None:
        if not self._waiters:
            with contextlib.suppress(IndexError):
                return self._slots.pop()
        waiter = _Waiter()
        with self._gate:
            self._waiters.append(waiter)
            self._hand_over()
        if not waiter.has_come.acquire(timeout=wait_s):
            with self._gate:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                    raise TimeoutError(f"no connection to the cache's index within {wait_s:g} s")
        return waiter.connection

    def _return(self, slot: Connection | None) -> None:
        self._slots.append(slot)
        if self._waiters:
            with self._gate:
                self._hand_over()

    def _hand_over(self) -> None:
        while self._waiters and self._slots:
            with contextlib.suppress(IndexError):
                slot = self._slots.pop()
                waiter = self._waiters.popleft()
                waiter.connection = slot
                waiter.has_come.release()

    def _current(self, connection: Connection | None) -> Connection:
        """One to the index that counts now."""
        now = time.monotonic()
        if now - self._looked_at >= self._look_every_s:
            self._inode, self._looked_at = self._inode_now(), now
        if connection is not None:
            if connection.inode == self._inode:
                return connection
            connection.close()
            self.close()  # the others, which keep the disk space of what is no index any more
        connection = self._opened()
        self._inode = connection.inode
        return connection

    def _inode_now(self) -> int:
        try:
            return self._directory.inode()
        except FileNotFoundError:
            return 0

    def _opened(self) -> Connection:
        inode = self._inode_now()
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
            inode = self._inode_now()
        return connect(self._directory)

    # --- forks -------------------------------------------------------------------------------------------------------
    def before_fork(self) -> None:
        """Take them all and close them: what is just being read or written ends first."""
        held = 0
        with contextlib.suppress(TimeoutError):  # stuck in a statement: the child leaves that one alone
            while held < self._limit:
                connection = self._slot(BUSY_S)
                held += 1
                if connection is not None:
                    connection.close()
        self._held[threading.get_ident()] = held

    def after_fork(self) -> None:
        for _ in range(self._held.pop(threading.get_ident(), 0)):
            self._return(None)

    def in_child(self) -> None:
        """Nobody but this thread is here, whoever held the lock."""
        self._start()


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
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
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


def cannot_open(error: BaseException) -> bool:
    """Whether another connection may help: one of its files has been removed."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CANTOPEN


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
