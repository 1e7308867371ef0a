"""Counters and versions in a file cache: numbers that change inside one transaction. Pure."""

from __future__ import annotations

import re
from typing import TypeGuard

from .file_change import Change
from .file_rows import Entry, checksum_of, digest, size_of

_INTEGER = re.compile(rb"-?[0-9]+")


def is_integer(payload: object) -> TypeGuard[bytes]:
    return type(payload) is bytes and _INTEGER.fullmatch(payload) is not None


def add(change: Change, key: bytes, delta: int) -> int | None:
    """The new number; None: there is none. Raises ValueError for what is no integer of 64 bits, as Redis does."""
    entry = change.find(key)
    if entry is None:
        return None
    if not is_integer(entry.payload):
        raise ValueError("the value is not an integer")
    number = int(entry.payload) + delta
    if not -(2**63) <= number < 2**63:
        raise ValueError("the number would pass 64 bits")
    _put(change, key, number, entry.expires_at)
    return number


def version(change: Change, key: bytes) -> int:
    found = _number(change.find(key))
    return raised(change, key) if found is None else found


def raised(change: Change, key: bytes) -> int:
    found = _number(change.find(key))
    number = change.next_version_us(0 if found is None else found + 1)
    _put(change, key, number, None)
    return number


def _number(entry: Entry | None) -> int | None:
    return int(entry.payload) if entry is not None and is_integer(entry.payload) else None


def _put(change: Change, key: bytes, number: int, expires_at: float | None) -> None:
    payload = b"%d" % number
    size, checksum = size_of(key, len(payload)), checksum_of(key, payload)
    change.put(Entry(digest(key), key, expires_at, change.now, size, checksum, None, payload))
