"""Values as bytes: a header that says how to read the rest, when it was stored and for how long, then JSON. Pure.

    byte 0      0x01 = JSON, not compressed, not signed; other values are free for later forms
    bytes 1-8   stored at, seconds since the epoch (IEEE 754, big-endian)
    bytes 9-16  time to live in seconds, infinity = for ever

No text and no pickle begins with 0x01, so foreign entries are told apart by one byte. Whatever cannot be read is a
miss, never an exception.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import orjson

JSON = 0x01
_HEADER = struct.Struct(">Bdd")
# By default orjson writes these as text, and nothing says so when they are read back.
OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS


class Uncacheable(TypeError):
    """The value has no JSON form that reads back: datetime, Decimal, bytes, set, dataclass, non-text keys …"""


@dataclass(frozen=True, slots=True)
class Entry:
    value: Any
    stored_at: float  # seconds since the epoch
    ttl_s: float | None  # None = for ever


def encode(value: Any, *, stored_at: float, ttl_s: float | None) -> bytes:
    """Raises Uncacheable. A tuple reads back as a list, a UUID as its text."""
    try:
        body = orjson.dumps(value, option=OPTIONS)
    except TypeError as error:
        raise Uncacheable(str(error)) from error
    return _HEADER.pack(JSON, stored_at, math.inf if ttl_s is None else ttl_s) + body


def decode(data: bytes) -> Entry | None:
    """None for anything that `encode` did not write in full."""
    if len(data) <= _HEADER.size or data[0] != JSON:
        return None
    _, stored_at, ttl_s = _HEADER.unpack_from(data)
    try:
        value = orjson.loads(data[_HEADER.size :])
    except orjson.JSONDecodeError:
        return None
    return Entry(value, stored_at, None if math.isinf(ttl_s) else ttl_s)
