"""What both pools say when they have no connection to lend. Pure."""

from __future__ import annotations


def all_in_use(alias: str, max_size: int, waiting: int) -> str:
    return f"all {max_size} connections of DATABASES[{alias!r}] in this process are in use, {waiting} callers wait"


def none_came_back(busy: str, timeout_s: float) -> str:
    return (
        f"{busy}, and none came back within {timeout_s:g} s. Raise OPTIONS['pool']['max_size'] "
        "(pool_max_size in the URL) where the server has room, keep transactions shorter, or give "
        "connections back earlier with connection.close()."
    )
