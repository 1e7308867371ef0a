"""Operations that took longer than BRAIN["CACHE"]["SLOW_MS"], with their keys and never with values: the last ones of this
process, and of all of them in Redis."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, NamedTuple

import orjson
import redis

from .conf import conf

KEPT = 200  # per process, and as many shared
LONGEST_KEY = 400  # characters
_KEPT_S = 7 * 86_400


class Slow(NamedTuple):
    alias: str
    operation: str
    key: str  # of several the first
    took_s: float
    at_s: float  # since the epoch


_last: deque[Slow] = deque(maxlen=KEPT)
_unshipped: deque[Slow] = deque(maxlen=KEPT)


def seen(alias: str, operation: str, key: str, seconds: float) -> None:
    """Kept if it was slow; else this costs a comparison."""
    if seconds * 1000 >= conf().SLOW_MS:
        shown = key[:LONGEST_KEY].encode("utf-8", "replace").decode()
        found = Slow(alias, operation, shown, seconds, time.time_ns() / 1e9)
        _last.append(found)
        _unshipped.append(found)


def recent() -> list[Slow]:
    """Of this process, the newest first."""
    return list(reversed(_last))


def ship(link: Any, key: str) -> None:
    """Put this process's new ones into the shared list. Raises redis.RedisError, and keeps them for the next time."""
    taken = [_unshipped.popleft() for _ in range(len(_unshipped))]
    if not taken:
        return
    texts = [orjson.dumps(list(one)) for one in taken]
    try:
        replies = link.pipeline(
            [("LPUSH", key, *texts), ("LTRIM", key, 0, KEPT - 1), ("EXPIRE", key, _KEPT_S)]
        )
    except (redis.RedisError, OSError):
        _unshipped.extendleft(reversed(taken))
        raise
    if isinstance(replies[0], redis.RedisError):
        raise replies[0]


def shared(link: Any, key: str) -> list[Slow]:
    """Of all processes, the newest first; what is no entry of ours is left out."""
    found = []
    for text in link.read("LRANGE", key, 0, KEPT - 1):
        try:
            found.append(Slow(*orjson.loads(text)))
        except (ValueError, TypeError):
            continue
    return sorted(found, key=lambda one: -one.at_s)


def forget() -> None:
    _last.clear()
    _unshipped.clear()
