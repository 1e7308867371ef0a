"""Values as bytes, behind one header byte that says how to read the rest. Pure."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

JSON = 0x01
_HEADER = struct.Struct(">Bdd")
# By default orjson writes these as text, and nothing says so when they are read back.
OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS

_MARK, _TIMED = 0xC0, 0x01
_META = struct.Struct(">ddffH")
_TAG = struct.Struct(">HQ")


class Uncacheable(TypeError):
    """The value has no form that reads back as what it was."""


class Unreadable(ValueError):
    """The bytes are no entry of ours, or one that must not be read.

    reason: "corrupt", "foreign" (somebody else wrote it), "signature" (missing or wrong) or "refused" (a pickle that
    was not asked for).
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Meta:
    """What an entry knows about itself. Seconds; times since the epoch."""

    stored_at: float
    expires_at: float | None  # None = never
    load_s: float = 0.0  # how long making the value took
    tags: Mapping[str, int] = field(default_factory=dict)  # tag → its version when the value was made
    sliding_s: float | None = None  # each hit lets it live so much longer; None = it does not slide


@dataclass(frozen=True, slots=True)
class Description:
    """What can be said of an entry without its value."""

    serializer: str  # "json", "typed", "pickle", "integer", or "foreign"
    compressor: str | None
    is_signed: bool
    is_timed: bool
    size_bytes: int
    meta: Meta | None


class Codec:
    def __init__(
        self,
        serializer: str = "json",
        compressor: str | None = None,
        compress_from_bytes: int = 1024,
        sign: bool = False,
        keys: Sequence[bytes] = (),
    ) -> None:
        self.serializer = serializer

    def encode(self, key: str, value: Any, meta: Meta | None = None) -> bytes:
        """Raises Uncacheable."""
        if meta is None and value.__class__ is int and -(2**63) <= value < 2**63:
            return b"%d" % value
        try:
            body = orjson.dumps(value, option=OPTIONS)
        except TypeError as error:
            raise Uncacheable(str(error)) from error
        if meta is None:
            return b"\xc0" + body
        return b"\xc1" + _packed(meta) + body

    def decode(self, key: str, data: bytes) -> tuple[Any, Meta | None]:
        """The value, and what is known about it. Raises Unreadable and nothing else."""
        try:
            if data[:1] == b"\xc0":
                return orjson.loads(data[1:]), None
            if data[:1] == b"\xc1":
                meta, start = _unpacked(data, 1)
                return orjson.loads(data[start:]), meta
        except (ValueError, struct.error) as error:
            raise Unreadable("corrupt") from error
        try:
            return orjson.loads(data), None
        except ValueError as error:
            raise Unreadable("refused" if data[:1] == b"\x80" else "foreign") from error

    def describe(self, data: bytes) -> Description:
        """Never fails, never unpickles."""
        is_timed = data[:1] == b"\xc1"
        kind = "json" if data[:1] in (b"\xc0", b"\xc1") else "integer" if data.isdigit() else "foreign"
        return Description(
            kind, None, False, is_timed, len(data), _unpacked(data, 1)[0] if is_timed else None
        )


def _packed(meta: Meta) -> bytes:
    until = math.inf if meta.expires_at is None else meta.expires_at
    sliding_s = math.nan if meta.sliding_s is None else meta.sliding_s
    fixed = _META.pack(meta.stored_at, until, meta.load_s, sliding_s, len(meta.tags))
    texts = [(tag.encode(), version) for tag, version in meta.tags.items()]
    return fixed + b"".join(_TAG.pack(len(text), version) + text for text, version in texts)


def _unpacked(data: bytes, start: int) -> tuple[Meta, int]:
    stored_at, until, load_s, sliding_s, count = _META.unpack_from(data, start)
    start += _META.size
    tags = {}
    for _ in range(count):
        length, version = _TAG.unpack_from(data, start)
        start += _TAG.size
        tags[data[start : start + length].decode()] = version
        start += length
    expires_at = None if until == math.inf else until
    return Meta(stored_at, expires_at, load_s, tags, None if sliding_s != sliding_s else sliding_s), start


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
