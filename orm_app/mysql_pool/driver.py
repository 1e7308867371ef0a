"""What the pool asks of mysqlclient."""

from __future__ import annotations

import contextlib
import os
import select
from dataclasses import dataclass
from typing import Any, Literal

import MySQLdb

# A dead peer is seen without asking. What is not seen is a connection that a firewall dropped in silence, and those let
# one be idle for a minute at least.
_PING_AFTER_S = 30.0


@dataclass(slots=True)
class Session:
    """What is known about the session behind a connection."""

    is_dirty: bool = False
    is_prepared: bool = False  # Django has set its isolation level
    server_data: dict[str, Any] | None = None  # Django's mysql_server_data


class MySQLDriver:
    def __init__(self, parameters: dict[str, Any], *, may_ping: bool) -> None:
        self._parameters, self._may_ping = parameters, may_ping

    def connect(self) -> Any:
        connection = MySQLdb.connect(**self._parameters)
        connection.session = Session()
        return connection

    def is_alive(self, connection: Any, idle_s: float) -> bool:
        """A server that says something unasked says goodbye: ask whether it has."""
        try:
            if _is_silent(connection) and (idle_s < _PING_AFTER_S or not self._may_ping):
                return True
            connection.ping()
        except (MySQLdb.Error, OSError, ValueError):
            return False
        return True

    def reset(self, connection: Any) -> Literal["clean", "dirty", "broken"]:
        try:
            # Also with nothing to roll back: it shows an unread result, and whether the server is still there.
            connection.rollback()
        except MySQLdb.Error:
            return "broken"
        return "dirty" if connection.session.is_dirty else "clean"

    def close(self, connection: Any) -> None:
        with contextlib.suppress(MySQLdb.Error):  # closed already
            connection.close()

    def abandon(self, connection: Any, *, is_idle: bool) -> None:
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


def _is_silent(connection: Any) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


_untouchable: list[Any] = []
