"""Values as bytes, behind one header byte that says how to read the rest. Pure.

    1 1 | serializer | compressor | signed | timed        two bits, two bits, one, one
    MAC                     16 bytes, where signed        of the cache key, the header byte and all that follows the MAC
    what the entry knows    26 bytes and more, where timed: stored_at, expires_at (infinity = never), seconds to load,
                            seconds it slides (NaN = it does not), count of tags; for each its length, version and text
    body                    JSON, JSON with tags for Python's types, or a pickle; then as `compression` wrote it

An int without more is its ASCII digits, so that the store itself can count with it. No text in ASCII or JSON and no
pickle begins with the marker bits, so the entries of others are told apart by one byte.
"""

from __future__ import annotations

import math
import pickle
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from . import typed_json
from .compression import MAX_BYTES, compress, decompress
from .plain_json import Uncacheable, dumps
from .signing import MAC_BYTES, Signer

__all__ = ["Codec", "Description", "Meta", "Uncacheable", "Unreadable"]

_MARK, _SIGNED, _TIMED = 0xC0, 0x02, 0x01
_PLAIN, _TAGGED, _PICKLE = 0, 1, 2
_SERIALIZERS = {"json": _PLAIN, "typed": _TAGGED, "pickle": _PICKLE}
_COMPRESSORS = {"zstd": 1, "lz4": 2, "gzip": 3}
_SERIALIZER_NAMES = {code: name for name, code in _SERIALIZERS.items()}
_COMPRESSOR_NAMES = {code: name for name, code in _COMPRESSORS.items()}
_HEADS: Final = [bytes([head]) for head in range(256)]

NO_TAGS: Final[Mapping[str, int]] = {}
_META = struct.Struct(">ddffH")
_TAG = struct.Struct(">HQ")
# As a store counts with, or django-redis wrote. Python refuses to read more than 4,300 digits.
_digits = re.compile(rb"0|-?[1-9][0-9]{0,999}").fullmatch


class Unreadable(ValueError):
    """The bytes are no entry of ours, or one that must not be read.

    reason: "corrupt", "foreign" (somebody else wrote it), "signature" (missing or wrong) or "refused" (a pickle that
    was not asked for).
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, init=False)
class Meta:
    """What an entry knows about itself. Seconds; times since the epoch. load_s and sliding_s keep seven digits."""

    stored_at: float
    expires_at: float | None  # None = never
    load_s: float  # how long making the value took
    tags: Mapping[str, int]  # tag → its version when the value was made
    sliding_s: float | None  # each hit lets it live so much longer; None = it does not slide

    def __init__(
        self,
        stored_at: float,
        expires_at: float | None,
        load_s: float = 0.0,
        tags: Mapping[str, int] = NO_TAGS,
        sliding_s: float | None = None,
    ) -> None:
        # Each hit makes one, and the __init__ of a frozen dataclass takes twice the time of its slots' own setters.
        _set_stored_at(self, stored_at)
        _set_expires_at(self, expires_at)
        _set_load_s(self, load_s)
        _set_tags(self, tags)
        _set_sliding_s(self, sliding_s)


_set_stored_at = Meta.__dict__["stored_at"].__set__
_set_expires_at = Meta.__dict__["expires_at"].__set__
_set_load_s = Meta.__dict__["load_s"].__set__
_set_tags = Meta.__dict__["tags"].__set__
_set_sliding_s = Meta.__dict__["sliding_s"].__set__


@dataclass(frozen=True, slots=True)
class Description:
    """What can be said of an entry without its value."""

    serializer: str  # "json", "typed" or "pickle"; of others "integer", "text", "pickle" or "foreign"
    compressor: str | None  # "zstd", "lz4" or "gzip"
    is_signed: bool  # not whether the signature is right
    is_timed: bool
    size_bytes: int  # as stored
    meta: Meta | None


class Codec:
    """How one alias writes. It reads what any other wrote, but pickles only where it writes them.

    serializer: "json" refuses what JSON cannot tell apart; "typed" keeps Python's types; "pickle" needs keys.
    compress_from_bytes: shorter bodies are left alone, and so are those that do not get smaller.
    sign: for the other two; what is not signed is then not read. Integers never are, since the store counts with them.
    keys: secrets of 16 bytes or more; the first signs, each verifies.
    Raises ValueError for any other choice.
    """

    __slots__ = ("_from_bytes", "_signer", "compressor", "is_signing", "serializer")

    def __init__(
        self,
        serializer: str = "json",
        compressor: str | None = None,
        compress_from_bytes: int = 1024,
        sign: bool = False,
        keys: Sequence[bytes] = (),
    ) -> None:
        if serializer not in _SERIALIZERS:
            raise ValueError(f"serializer is one of {', '.join(_SERIALIZERS)}; not {serializer!r}")
        if compressor is not None and compressor not in _COMPRESSORS:
            raise ValueError(f"compressor is None or one of {', '.join(_COMPRESSORS)}; not {compressor!r}")
        if (sign or serializer == "pickle") and not keys:
            raise ValueError("signed entries and pickles need keys")
        self.serializer, self.compressor = serializer, compressor
        self.is_signing = sign or serializer == "pickle"
        self._from_bytes = compress_from_bytes
        self._signer = Signer(keys) if keys else None

    def encode(self, key: str, value: Any, meta: Meta | None = None) -> bytes:
        """key: under which it will be stored. Raises Uncacheable."""
        if meta is None and type(value) is int and -(2**63) <= value < 2**63:
            return b"%d" % value
        if self.serializer == "json":
            head, body = _MARK, dumps(value)
        else:
            head, body = self._written(value)
        if self.compressor is not None and self._from_bytes <= len(body) <= MAX_BYTES:
            head, body = _squeezed(head, body, self.compressor)
        if meta is not None:
            head, body = head | _TIMED, _packed(meta) + body
        if self.is_signing:
            head |= _SIGNED
            body = self._signer.mac(key, _HEADS[head], body) + body  # type: ignore[union-attr]
        return _HEADS[head] + body

    def decode(self, key: str, data: bytes) -> tuple[Any, Meta | None]:
        """The value, and what is known about it. Raises Unreadable and nothing else."""
        head = data[0] if data else 0
        try:
            if head == _MARK and not self.is_signing:  # most entries, so without a further step
                return orjson.loads(data[1:]), None
            if head == _MARK | _TIMED and not self.is_signing:
                meta, start = _unpacked(data, 1)
                return orjson.loads(data[start:]), meta
            if head >= _MARK:
                return self._opened(key, head, data)
        except Unreadable:
            raise
        except (ValueError, struct.error) as error:
            raise Unreadable("corrupt") from error
        return self._foreign(data), None

    def describe(self, data: bytes) -> Description:
        """Never fails, verifies nothing, unpickles nothing."""
        head = data[0] if data else 0
        if head < _MARK:
            return Description(_kind(data), None, False, False, len(data), None)
        is_signed, is_timed = bool(head & _SIGNED), bool(head & _TIMED)
        try:
            meta = _unpacked(data, 1 + MAC_BYTES * is_signed)[0] if is_timed else None
        except (ValueError, struct.error):
            meta = None
        serializer = _SERIALIZER_NAMES.get(head >> 4 & 3, "foreign")
        compressor = _COMPRESSOR_NAMES.get(head >> 2 & 3)
        return Description(serializer, compressor, is_signed, is_timed, len(data), meta)

    def _written(self, value: Any) -> tuple[int, bytes]:
        if self.serializer == "typed":
            body, is_tagged = typed_json.dumps(value)
            return _MARK | is_tagged << 4, body
        return _MARK | _PICKLE << 4, _pickled(value)

    def _opened(self, key: str, head: int, data: bytes) -> tuple[Any, Meta | None]:
        serializer, start, meta = head >> 4 & 3, 1, None
        if serializer == _PICKLE and self.serializer != "pickle":
            raise Unreadable("refused")
        if head & _SIGNED:
            start += MAC_BYTES
            if not self._is_ours(key, data):
                raise Unreadable("signature")
        elif self.is_signing:
            raise Unreadable("signature")
        if head & _TIMED:
            meta, start = _unpacked(data, start)
        body = data[start:]
        if compressor := head >> 2 & 3:
            body = decompress(_COMPRESSOR_NAMES[compressor], body)
        if serializer == _PLAIN:
            return orjson.loads(body), meta
        return _loaded(serializer, body), meta

    def _is_ours(self, key: str, data: bytes) -> bool:
        if self._signer is None:
            return False
        start = 1 + MAC_BYTES
        return self._signer.verifies(data[1:start], key, data[:1], data[start:])

    def _foreign(self, data: bytes) -> Any:
        """The integers and the JSON text of django-redis, or of `redis-cli SET`."""
        if _digits(data):
            return int(data)
        if data[:1] == b"\x80":
            raise Unreadable("refused")
        if self.is_signing:
            raise Unreadable("signature")
        try:
            return orjson.loads(data)
        except ValueError as error:
            raise Unreadable("foreign") from error


def _kind(data: bytes) -> str:
    if _digits(data):
        return "integer"
    if data[:1] == b"\x80":
        return "pickle"
    return "text" if data[:1] and data[:1] in b'{["tfn-0123456789' else "foreign"


def _squeezed(head: int, body: bytes, compressor: str) -> tuple[int, bytes]:
    smaller = compress(compressor, body)
    return (head | _COMPRESSORS[compressor] << 2, smaller) if len(smaller) < len(body) else (head, body)


def _loaded(serializer: int, body: bytes) -> Any:
    if serializer == _TAGGED:
        return typed_json.loads(body)
    if serializer == _PICKLE:
        return _unpickled(body)
    raise Unreadable("corrupt")


def _pickled(value: Any) -> bytes:
    try:
        return pickle.dumps(value, protocol=5)
    except Exception as error:  # a __reduce__ may raise anything
        raise Uncacheable(f"{type(value).__qualname__} has no pickle: {error}") from error


def _unpickled(body: bytes) -> Any:
    try:
        return pickle.loads(body)  # noqa: S301  (its signature is right)
    except Exception as error:  # a class that has moved, a __setstate__ that raises
        raise Unreadable("corrupt") from error


def _packed(meta: Meta) -> bytes:
    until = math.inf if meta.expires_at is None else meta.expires_at
    sliding_s = math.nan if meta.sliding_s is None else meta.sliding_s
    fixed = _META.pack(meta.stored_at, until, meta.load_s, sliding_s, len(meta.tags))
    if not meta.tags:
        return fixed
    texts = [(tag.encode("utf-8", "surrogatepass"), version) for tag, version in meta.tags.items()]
    return fixed + b"".join(_TAG.pack(len(text), version) + text for text, version in texts)


def _unpacked(data: bytes, start: int) -> tuple[Meta, int]:
    """And where the body begins."""
    stored_at, until, load_s, sliding_s, count = _META.unpack_from(data, start)
    start += _META.size
    if not math.isfinite(stored_at + load_s) or until != until:
        raise ValueError("no times that we write")
    tags, start = _tags(data, start, count) if count else (NO_TAGS, start)
    expires_at = None if until == math.inf else until
    return Meta(stored_at, expires_at, load_s, tags, None if sliding_s != sliding_s else sliding_s), start


def _tags(data: bytes, start: int, count: int) -> tuple[Mapping[str, int], int]:
    tags = {}
    for _ in range(count):
        length, version = _TAG.unpack_from(data, start)
        start += _TAG.size
        tags[data[start : start + length].decode("utf-8", "surrogatepass")] = version
        start += length
    return tags, start
