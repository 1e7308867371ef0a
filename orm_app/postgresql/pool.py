"""psycopg's pool, made to find back at once when the server was away, and to say what is wrong when it cannot lend.

As it is, its attempts to connect are 1, 2, 4, 8, 16 … s apart: after an outage of 17 s callers still timed out 10 s
later (measured). And whoever meets dead connections sleeps 1, 2, 4 … s between two of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

from psycopg import Connection
from psycopg_pool import ConnectionPool, PoolTimeout, TooManyRequests

from orm_app.pool_text import all_in_use, none_came_back

_RETRY_S = 0.25  # between two attempts to connect while somebody waits
_LOG_EVERY_S = 10.0

Check = Callable[[Any], None]


class Pool(ConnectionPool[Connection[Any]]):
    """alias: for messages. check: raises when a connection is dead; None: none is asked before it is lent."""

    def __init__(self, alias: str, *, check: Check | None, **options: Any) -> None:
        self._alias, self._asks = alias, check
        self._dead = 0
        self._last_error = ""
        # A place whose attempt failed is given up soon; while somebody waits the next one begins at once.
        ours: dict[str, Any] = {"name": alias, "reconnect_timeout": _RETRY_S, "reconnect_failed": _again}
        super().__init__(open=False, **(ours | options))

    def getconn(self, timeout: float | None = None) -> Connection[Any]:
        timeout_s = self.timeout if timeout is None else timeout
        deadline, failed = monotonic() + timeout_s, self._failed()
        while True:
            try:
                connection = super().getconn(max(0.0, deadline - monotonic()))
            except TooManyRequests as error:
                raise TooManyRequests(f"{self._busy()}: max_waiting is {self.max_waiting}.") from error
            except PoolTimeout as error:
                self._forget_who_gave_up()
                raise PoolTimeout(self._reason(timeout_s, self._failed() - failed)) from error
            if self._is_alive(connection):
                return connection

    def get_stats(self) -> dict[str, int]:
        found = super().get_stats()
        if self._dead:  # each was given back for another one, which is nobody's request
            found["requests_num"] -= self._dead
            found["returns_bad"] -= self._dead
            found["connections_lost"] = found.get("connections_lost", 0) + self._dead
        return found

    def _connect(self, timeout: float | None = None) -> Connection[Any]:
        try:
            return super()._connect(timeout)
        except Exception as error:
            self._last_error = str(error).strip().partition("\n")[0]
            raise

    def _is_alive(self, connection: Connection[Any]) -> bool:
        if self._asks is None:
            return True
        try:
            self._asks(connection)
        except Exception:  # noqa: BLE001  (whatever it is, it is not lent)
            connection.close()
            self.putconn(connection)
            self._dead += 1
            return False
        except BaseException:
            self.putconn(connection)
            raise
        return True

    def _forget_who_gave_up(self) -> None:
        """psycopg's pool keeps them until it has a connection for them: they would count as callers, in max_waiting too,
        and we would go on connecting to a server that is away, ten times a second, for nobody."""
        with self._lock:
            for one in [one for one in self._waiting if one.error is not None]:
                self._waiting.remove(one)

    def _failed(self) -> int:
        return int(super().get_stats().get("connections_errors", 0))

    def _busy(self) -> str:
        return all_in_use(self._alias, self.max_size, super().get_stats()["requests_waiting"])

    def _reason(self, timeout_s: float, failed: int) -> str:
        if failed:
            return (
                f"no connection of DATABASES[{self._alias!r}] could be opened within {timeout_s:g} s: {failed} attempts "
                f"failed, the last with: {self._last_error}"
            )
        return none_came_back(self._busy(), timeout_s)


def _again(pool: ConnectionPool[Any]) -> None:
    if pool.get_stats()["requests_waiting"]:
        pool.check()  # opens one where there is room


class _Seldom(logging.Filter):
    """A warning of psycopg's pools once in 10 s for each: while a server is away there would be eight a second."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        pool = record.args[0] if isinstance(record.args, tuple) and record.args else ""
        if record.levelno < logging.WARNING or not isinstance(pool, str):
            return True
        key, now = (str(record.msg), pool), monotonic()
        if now - self._last.get(key, -_LOG_EVERY_S) < _LOG_EVERY_S:
            return False
        self._last[key] = now
        return True


logging.getLogger("psycopg.pool").addFilter(_Seldom())
