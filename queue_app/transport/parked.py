"""Envelopes that no consumer could read, or whose consumers died too often: how many there were, the newest ones, and what to do with one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .scripts import GIVEN_UP, PARKED, PARKED_COUNTS, UNPARK

_SEPARATOR = "\x06\x16"  # Kombu's default `sep`


@dataclass(frozen=True, slots=True)
class ParkedEnvelope:
    """raw: the envelope's bytes as they were found. entry: how the list holds it, and its identity."""

    parked_at: datetime
    queue: str
    reason: str
    raw: bytes
    entry: bytes


def count(client: Any, prefix: str = "") -> dict[str, int]:
    """Envelopes parked since ever, by queue. client: a redis.Redis without decode_responses; prefix: global_keyprefix."""
    counts = client.hgetall(prefix + PARKED_COUNTS)
    return {queue.decode(errors="replace"): int(number) for queue, number in counts.items()}


def newest(client: Any, most: int = 100, prefix: str = "") -> list[ParkedEnvelope]:
    """The newest first; the server keeps 1000."""
    return [_read(entry) for entry in client.lrange(prefix + PARKED, 0, most - 1)]


def given_up(client: Any, most: int = 100, prefix: str = "") -> list[ParkedEnvelope]:
    """Those whose consumers died too often and which nobody has recorded yet, the oldest first."""
    return [_read(entry) for entry in reversed(client.lrange(prefix + GIVEN_UP, -most, -1))]


def recorded(client: Any, parked: ParkedEnvelope, prefix: str = "") -> None:
    """It is no longer among the given up; parked it stays."""
    client.lrem(prefix + GIVEN_UP, -1, parked.entry)


def put_back(client: Any, parked: ParkedEnvelope, raw: bytes | None = None, prefix: str = "") -> bool:
    """Publish it to its queue again, with other bytes when given. False: somebody else has done something about it."""
    wake = f"{prefix}{parked.queue}{_SEPARATOR}wake"
    keys = prefix + PARKED, prefix + parked.queue, wake
    return bool(client.eval(UNPARK, len(keys), *keys, parked.entry, parked.raw if raw is None else raw))


def discard(client: Any, parked: ParkedEnvelope, prefix: str = "") -> bool:
    """False: it was gone already."""
    return bool(client.lrem(prefix + PARKED, 1, parked.entry))


def _read(entry: bytes) -> ParkedEnvelope:
    about, _, raw = entry.partition(b"\n")
    told = json.loads(about)
    at = datetime.fromtimestamp(told["at"], UTC)
    return ParkedEnvelope(parked_at=at, queue=told["queue"], reason=told["reason"], raw=raw, entry=entry)
