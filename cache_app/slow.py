"""Operations that took longer than BRAIN["CACHE"]["SLOW_MS"]: the last ones of this process, with their keys."""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

from .conf import conf

KEPT = 200


class Slow(NamedTuple):
    alias: str
    operation: str
    key: str
    took_s: float
    at_s: float  # since the epoch


_last: deque[Slow] = deque(maxlen=KEPT)


def seen(alias: str, operation: str, key: str, seconds: float) -> None:
    if seconds * 1000 >= conf().SLOW_MS:
        _last.append(Slow(alias, operation, key, seconds, time.time_ns() / 1e9))


def recent() -> list[Slow]:
    """The newest first."""
    return list(reversed(_last))
