"""Whether the database answers, within a bounded time."""

from __future__ import annotations

import time
from typing import Any

from django.db import Error, connections

from foundation.health import Health

from . import mongo

_PROBE_TIMEOUT_S = 3.0
_MONGODB_TIMEOUT_S = 2.0  # its driver uses up all of it before it says why, and a page waits 3.4 s (`asking`)


def check(using: str = "default") -> Health:
    """`SELECT 1` (MongoDB: ping), timed. Never raises; the detail holds no password."""
    started = time.perf_counter()
    try:
        _select_one(connections[using])
    except (Error, OSError) as error:
        return Health("database", False, reason(using, error), _ms_since(started))
    return Health("database", True, f"{connections[using].vendor} answers", _ms_since(started))


def _select_one(connection: Any) -> None:
    if mongo.is_on(connection.alias):
        mongo.ping(connection, _MONGODB_TIMEOUT_S)
        return
    pool = getattr(connection, "pool", None)
    if pool is None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return
    # Past Django's connection: the pool would wait its whole timeout for a server that is gone. The driver's own
    # errors come out as Django's.
    pool.open()
    with (
        connection.wrap_database_errors,
        pool.connection(timeout=_PROBE_TIMEOUT_S) as raw,
        raw.cursor() as cursor,
    ):
        cursor.execute("SELECT 1")


def reason(using: str, error: BaseException) -> str:
    """One line that says why. A pool only says that it waited, so the server is asked once without it."""
    if type(error.__cause__).__name__ == "PoolTimeout":
        return _reason_without_pool(using)
    return _without_password(using, error)


def _reason_without_pool(using: str) -> str:
    connection: Any = connections[using]
    parameters = {k: v for k, v in connection.get_connection_params().items() if k != "pool"}
    try:
        connection.Database.connect(**parameters | {"connect_timeout": int(_PROBE_TIMEOUT_S)}).close()
    except connection.Database.Error as error:
        return _without_password(using, error)
    return f"all {connection.pool.max_size} connections of this process's pool are in use (pool_max_size)"


def _without_password(using: str, error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    password = str(connections[using].settings_dict.get("PASSWORD") or "")
    return text.replace(password, "***") if password else text


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 2)
