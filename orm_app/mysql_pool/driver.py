"""What the pool asks of mysqlclient."""

from __future__ import annotations

import contextlib
import os
import select
from dataclasses import dataclass
from typing import Any, Literal

import MySQLdb
from MySQLdb.connections import Connection as MySQLConnection

from .traces import left_by

# A dead peer is seen without asking. What is not seen is a connection that a firewall dropped in silence, and those let
# one be idle for a minute at least.
_PING_AFTER_S = 30.0


@dataclass(slots=True)
class Session:
    """What is known about the session behind a connection."""

    is_dirty: bool = False  # changed, and a rollback does not change it back
    is_doubtful: bool = False  # a transaction may be open, or rows unread
    is_watched: bool = False  # a statement of Django's cursor is on its way
    is_prepared: bool = False  # Django has set its isolation level
    server_data: dict[str, Any] | None = None  # Django's mysql_server_data

    def note(self, sql: object) -> None:
        match left_by(sql):
            case "session":
                self.is_dirty = True
            case "transaction":
                self.is_doubtful = True


class Connection(MySQLConnection):
    """mysqlclient's, which knows its session, and notices statements that go past Django's cursor."""

    pool_member: Any

    def __init__(self, **parameters: Any) -> None:
        self.session = Session()
        super().__init__(**parameters)
        self.session.is_doubtful = False

    def query(self, query: Any) -> None:
        if not self.session.is_watched:
            self.session.is_doubtful = True
        super().query(query)


class MySQLDriver:
    def __init__(self, parameters: dict[str, Any], *, may_ping: bool) -> None:
        self._parameters, self._may_ping = parameters, may_ping

    def connect(self) -> Connection:
        return Connection(**self._parameters)

    def is_alive(self, connection: Connection, idle_s: float) -> bool:
        """A server that says something unasked says goodbye: ask whether it has."""
        try:
            if _is_silent(connection) and (idle_s < _PING_AFTER_S or not self._may_ping):
                return True
            connection.ping()
        except (MySQLdb.Error, OSError, ValueError):
            return False
        return True

    def reset(self, connection: Connection) -> Literal["clean", "dirty", "broken"]:
        session = connection.session
        try:
            # No round trip where there can be nothing to roll back. It shows as well whether rows are unread.
            if session.is_doubtful or not connection.get_autocommit():
                connection.rollback()
                session.is_doubtful = False
        except MySQLdb.Error:
            return "broken"
        return "dirty" if session.is_dirty else "clean"

    def close(self, connection: Connection) -> None:
        with contextlib.suppress(MySQLdb.Error):  # closed already
            connection.close()

    def abandon(self, connection: Connection, *, is_idle: bool) -> None:
        """mysqlclient says goodbye when it closes or frees a connection: let it say so to nobody."""
        with contextlib.suppress(MySQLdb.Error, OSError, ValueError):
            nobody = os.open(os.devnull, os.O_RDWR)
            os.dup2(nobody, connection.fileno(), inheritable=False)
            os.close(nobody)
        if is_idle:
            self.close(connection)
        else:
            # Another thread may have been in the middle of it when the process forked: it is never touched again.
            _untouchable.append(connection)


def _is_silent(connection: Connection) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


_untouchable: list[Connection] = []
