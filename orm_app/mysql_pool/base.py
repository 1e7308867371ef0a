"""The name that Django looks for: its MySQL backend, whose connections come from a pool and go back to it.

A connection is given back rolled back, by `connection.close()` and at the end of a request. One whose session was
changed (SET, temporary tables, locks, user variables) is closed instead. What goes past Django's cursor, by
`connection.connection`, is rolled back but its statements are not read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from django.db.backends.mysql import base
from django.utils.asyncio import async_unsafe
from django.utils.functional import cached_property

from . import options
from .creation import DatabaseCreation
from .driver import MySQLDriver, Session
from .pool import Pool

Key = tuple[object, ...]


class CursorWrapper(base.CursorWrapper):
    """Django's, which also notes what a statement leaves behind in the session."""

    def __init__(self, cursor: Any, session: Session) -> None:
        super().__init__(cursor)
        self._session = session

    def execute(self, query: str, args: Any = None) -> Any:
        with _Watch(self._session, query):
            return super().execute(query, args)

    def executemany(self, query: str, args: Iterable[Any]) -> Any:
        with _Watch(self._session, query):
            return super().executemany(query, args)

    def callproc(self, procname: str, args: Iterable[Any] = ()) -> Any:
        self._session.is_dirty = True  # the driver passes arguments in user variables
        return self.cursor.callproc(procname, args)


class _Watch:
    """While a statement runs. One that fails, or is interrupted between its parts, may leave anything."""

    __slots__ = ("_session",)

    def __init__(self, session: Session, query: object) -> None:
        session.note(query)
        self._session = session

    def __enter__(self) -> None:
        self._session.is_watched = True

    def __exit__(self, kind: object, *_: object) -> None:
        self._session.is_watched = False
        if kind is not None:
            self._session.is_doubtful = True


class DatabaseWrapper(base.DatabaseWrapper):
    connection: Any
    creation_class = DatabaseCreation
    _pools: dict[Key, Pool] = {}
    _pools_lock = threading.Lock()
    _is_prepared = False  # while it connects
    _is_rejecting = False  # while it checks its connection

    @property
    def pool(self) -> Pool | None:
        """This alias's pool in this process, made on first use; None without OPTIONS["pool"]."""
        if self.alias == NO_DB_ALIAS or not self.settings_dict["OPTIONS"].get("pool"):
            return None
        key = self._key()
        found = self._pools.get(key)
        if found is None:
            made = self._new_pool()
            with self._pools_lock:
                found = self._pools.setdefault(key, made)
        return found

    def _key(self) -> Key:
        # A test database has another name, and a copy of a connection may have other options: never the same sessions.
        settings = self.settings_dict
        parts = (str(settings[name]) for name in ("HOST", "PORT", "USER", "NAME", "OPTIONS"))
        return (self.alias, *parts)

    def _new_pool(self) -> Pool:
        settings = self.settings_dict
        if settings.get("CONN_MAX_AGE", 0) != 0:
            raise ImproperlyConfigured(
                f"DATABASES[{self.alias!r}]: a pool needs CONN_MAX_AGE = 0; its connections stay open by themselves."
            )
        try:
            chosen = options.read(settings["OPTIONS"]["pool"])
        except ValueError as error:
            raise ImproperlyConfigured(f"DATABASES[{self.alias!r}]['OPTIONS']['pool']: {error}.") from error
        may_ping = bool(settings.get("CONN_HEALTH_CHECKS"))
        return Pool(self.alias, MySQLDriver(self.get_connection_params(), may_ping=may_ping), chosen)

    def close_pool(self) -> None:
        """Its connections end; the next query opens a new pool."""
        with self._pools_lock:
            closing = [self._pools.pop(key) for key in list(self._pools) if key[0] == self.alias]
        for pool in closing:
            pool.close()

    def get_connection_params(self) -> dict[str, Any]:
        parameters: dict[str, Any] = super().get_connection_params()
        parameters.pop("pool", None)
        return parameters

    @async_unsafe
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        pool = self.pool
        if pool is None:
            return super().get_new_connection(conn_params)
        raw = pool.getconn()
        self._is_prepared = raw.session.is_prepared
        return raw

    def init_connection_state(self) -> None:
        if self._is_prepared:  # by an earlier borrower of the same session: connect() need not do it again
            self._is_prepared = False
            BaseDatabaseWrapper.init_connection_state(self)
            return
        session = self._session
        was_dirty = session is not None and session.is_dirty
        super().init_connection_state()
        if session is not None:
            session.is_prepared, session.is_dirty = True, was_dirty

    @cached_property
    def mysql_server_data(self) -> dict[str, Any]:
        # Django asks once per wrapper, and under ASGI each request has its own: a session remembers the answer.
        session = self._session
        if session is None:
            answer: dict[str, Any] = super().mysql_server_data
            return answer
        if session.server_data is None:
            session.server_data = super().mysql_server_data
        return session.server_data

    @async_unsafe
    def create_cursor(self, name: str | None = None) -> Any:
        session = self._session
        if session is None:
            return super().create_cursor(name)
        return CursorWrapper(self.connection.cursor(), session)

    @property
    def _session(self) -> Session | None:
        """Of a connection that came from a pool."""
        return getattr(self.connection, "session", None)

    def is_usable(self) -> bool:
        return self.connection is not None and bool(super().is_usable())

    def close_if_health_check_failed(self) -> None:
        self._is_rejecting = True  # what it closes is not to be lent again
        try:
            super().close_if_health_check_failed()
        finally:
            self._is_rejecting = False

    def _close(self) -> None:
        raw, session = self.connection, self._session
        if session is None:
            super()._close()
            return
        # It may be somebody else's in a moment: nothing of this wrapper may reach it.
        self.connection = None
        with self.wrap_database_errors:
            raw.pool_member.pool.putconn(raw, is_broken=self._is_rejecting)


def _let_go() -> None:
    """In a forked child: the thread that forked may hold a connection of the parent's. Its next query opens a new one."""
    for connection in connections.all(initialized_only=True):
        if not isinstance(connection, DatabaseWrapper) or connection.in_atomic_block:
            continue
        if connection._session is not None:
            connection.connection = None


# After the pool's own, which has made the connection harmless.
os.register_at_fork(after_in_child=_let_go)
