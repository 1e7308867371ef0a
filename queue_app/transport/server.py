"""Whether the server can run the scripts of this transport, and whether it still is the one to run them."""

from __future__ import annotations

from typing import Any

from kombu.exceptions import VersionMismatch
from redis.exceptions import ReadOnlyError, ResponseError

_OLDEST = (6, 2)  # RPOP with a count


class UnsuitableServer(VersionMismatch):
    """It cannot be the broker. Not a connection error: nobody should try again."""


def require_suitable(client: Any) -> None:
    """Raises UnsuitableServer for a server that is too old or a node of a Redis Cluster."""
    try:
        about = client.info()
    except ResponseError:  # an account that may not run INFO; the first script will tell
        return
    version = str(about.get("redis_version", ""))
    if _numbers(version) < _OLDEST:
        raise UnsuitableServer(f"the broker runs Redis {version}; this transport needs 6.2 or any Valkey")
    if about.get("cluster_enabled"):
        raise UnsuitableServer(
            "the broker is a Redis Cluster node: a message moves between its queue's lists and `unacked` in one script,"
            " and a cluster keeps these keys on different nodes; use one server, or Sentinel"
        )


def is_demoted(error: ResponseError) -> bool:
    """What a server that has become a replica says to whoever writes, and to whoever was waiting for a token."""
    return isinstance(error, ReadOnlyError) or str(error).startswith("UNBLOCKED")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
