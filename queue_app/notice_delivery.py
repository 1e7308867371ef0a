"""How notices get through, without I/O: which may go now, when one that was refused is tried again, what proves its sender."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

T = TypeVar("T")

_RETRY_S = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 600.0, 900.0, 1200.0)  # an hour in all
_LONGEST_ASKED_S = 3600.0
_ONLY_NOW = frozenset({408, 425, 429})  # of 4xx, those that say nothing against the request itself


def in_turn(unsent: Iterable[tuple[T, Collection[int]]]) -> list[T]:
    """Those that may go: before which no other one of the channel tells of an alert of theirs.

    unsent: of one channel, the oldest first, each with the ids of its alerts. So a recovery never overtakes the firing
    that it ends, and what the channel refuses holds up nothing else.
    """
    found, told = [], set[int]()
    for one, of in unsent:
        if told.isdisjoint(of):
            found.append(one)
        told.update(of)
    return found


def is_final(status: int) -> bool:
    """Of an HTTP answer: the same request would be answered the same."""
    return 400 <= status < 500 and status not in _ONLY_NOW


def retry_s(attempts: int, asked_s: float = 0.0) -> float | None:
    """Seconds until a notice that failed this often is tried again; None: it is given up. asked_s: by the receiver."""
    if attempts > len(_RETRY_S):
        return None
    return max(_RETRY_S[attempts - 1], min(asked_s, _LONGEST_ASKED_S))


def asked_s(retry_after: str, now: datetime) -> float:
    """What a Retry-After asks for, seconds or a date; 0 where it says nothing that can be read."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:  # "-0000": UTC, by a sender that does not say where it is
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """Over "<seconds since 1970>.<body>", so that an old message cannot be sent again as a new one."""
    mac = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256)
    return f"sha256={mac.hexdigest()}"


def channel_name(url: str) -> str:
    """Names a webhook without telling its path, which is a secret at many receivers."""
    host = url.partition("://")[2].partition("/")[0].partition("?")[0].rpartition("@")[2]
    return f"{host[-80:]}#{hashlib.sha256(url.encode()).hexdigest()[:8]}"
