"""JSON that keeps Python's types. Only values that need it pay for it. Pure.

What JSON has not is an object with one key, which begins with "$":

    {"$t": […]} tuple                 {"$s": […]} set           {"$f": […]} frozenset
    {"$m": [key, value, …]} dict with keys that are not text    {"$": {…}} a dict that looks like one of these
    {"$d": "2026-01-01"} date         {"$a": "12:30:00", …} time of day
    {"$w": "2026-01-01T12:30:00+01:00"} datetime; [text, zone, fold] with a named zone, or where the fold is 1
    {"$p": [days, seconds, microseconds]} timedelta             {"$u": its text} UUID
    {"$n": "1.10"} Decimal            {"$b": base64} bytes      {"$i": hex} int beyond 64 bits
    {"$r": "nan"} a float that is not finite

A subclass of str, int, list or dict reads back as that; any other class that is not listed is refused.
"""

from __future__ import annotations

import math
from base64 import b64decode
from binascii import b2a_base64
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Any, TypeGuard
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

import orjson

from .plain_json import EXACT, OPTIONS, Uncacheable, consists_of, first_wrong, holds_null, kind_of, wrong_text

# What the first way through a value takes as it is, and the second, which looks at each number and key.
_QUICK: frozenset[type] = frozenset({str, int, bool, type(None)})
_THOROUGH: frozenset[type] = frozenset({str, bool, type(None)})
_SAFE_UNKNOWN = SafeUUID.unknown
_set_int, _set_safe = UUID.__dict__["int"].__set__, UUID.__dict__["is_safe"].__set__


def dumps(value: Any) -> tuple[bytes, bool]:
    """The JSON text, and whether it holds tags: without them any reader of JSON has the value. Raises Uncacheable."""
    try:
        body = orjson.dumps(value, option=OPTIONS)
        if consists_of(value, EXACT, check_floats=holds_null(body) is not None):
            return body, False
    except TypeError:  # a set, a datetime, …
        pass
    return _dumps_tagged(value), True


def _dumps_tagged(value: Any) -> bytes:
    with suppress(TypeError):  # a large int, a key that is not text, or no form at all
        return _written(value, _QUICK)
    try:
        return _written(value, _THOROUGH)
    except TypeError as error:
        raise Uncacheable(first_wrong(value, _wrong) or str(error)) from error


def _written(value: Any, atoms: frozenset[type]) -> bytes:
    try:
        # What has a tag by now, orjson writes itself, in a fraction of the time of isoformat().
        return orjson.dumps(_WRITERS[type(value)](value, atoms), option=orjson.OPT_PASSTHROUGH_DATACLASS)
    except RecursionError as error:
        raise TypeError("nested too deeply") from error


def loads(body: bytes) -> Any:
    """Of a text with tags. Raises ValueError."""
    try:
        return _untagged(orjson.loads(body))
    # KeyError: an unknown tag or zone; OSError: a zone that is a directory; ArithmeticError: no Decimal.
    except (TypeError, AttributeError, LookupError, ArithmeticError, OSError, RecursionError) as error:
        raise ValueError(f"no typed JSON: {type(error).__name__}") from error


def _tagged_list(value: list[Any], atoms: frozenset[type]) -> list[Any]:
    """The list itself where nothing in it needs a tag: a large value with one datetime is not copied."""
    made = value
    for index, item in enumerate(value):
        kind = type(item)
        if kind not in atoms:
            inner = _WRITERS[kind](item, atoms)
            if inner is not item:
                if made is value:
                    made = value.copy()
                made[index] = inner
    return made


def _tagged_dict(value: dict[Any, Any], atoms: frozenset[type]) -> dict[str, Any]:
    if atoms is _THOROUGH and not all(type(key) is str for key in value):
        return {"$m": _all([part for pair in value.items() for part in pair], atoms)}
    made = value
    for key, item in value.items():
        kind = type(item)
        if kind not in atoms:
            inner = _WRITERS[kind](item, atoms)
            if inner is not item:
                if made is value:
                    made = value.copy()
                made[key] = inner
    # A key that is no text makes orjson refuse, and then the thorough way is taken.
    return {"$": made} if len(value) == 1 and str(next(iter(value)))[:1] == "$" else made


def _all(items: Iterable[Any], atoms: frozenset[type]) -> list[Any]:
    return [item if type(item) in atoms else _WRITERS[type(item)](item, atoms) for item in items]


def _as_base(value: Any, atoms: frozenset[type]) -> Any:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return _tagged_int(int.__int__(value), atoms)
    if isinstance(value, list):
        return _tagged_list(list(value), atoms)
    if isinstance(value, dict):
        return _tagged_dict(dict(value), atoms)
    raise TypeError(f"no form for {type(value).__qualname__}")


def _tagged_int(value: int, atoms: frozenset[type]) -> Any:
    # Hexadecimal: Python refuses to write more than 4,300 decimal digits.
    return value if -(2**63) <= value < 2**64 else {"$i": f"{value:x}"}


def _tagged_float(value: float, atoms: frozenset[type]) -> Any:
    return value if math.isfinite(value) else {"$r": repr(value)}


def _tagged_datetime(value: datetime, atoms: frozenset[type]) -> Any:
    zone = value.tzinfo
    return {"$w": value if (zone is None or zone is UTC) and not value.fold else _clock(value)}


def _tagged_time(value: time, atoms: frozenset[type]) -> Any:
    return {"$a": _clock(value)}


def _clock(value: datetime | time) -> str | list[Any]:
    zone = value.tzinfo
    if _is_named(zone):
        return [value.replace(tzinfo=None).isoformat(), zone.key, value.fold]
    if zone is not None and value.utcoffset() is None:
        raise TypeError("a zone without an offset")
    return [value.isoformat(), None, 1] if value.fold else value.isoformat()


def _is_named(zone: tzinfo | None) -> TypeGuard[ZoneInfo]:
    return isinstance(zone, ZoneInfo) and zone.key is not None  # a ZoneInfo.from_file() may have no name


def _as_is(value: Any, atoms: frozenset[type]) -> Any:
    return value


class _Writers(dict[type, Callable[[Any, frozenset[type]], Any]]):
    """By exact class; what is not listed may be a subclass of something that JSON has."""

    def __missing__(self, kind: type) -> Callable[[Any, frozenset[type]], Any]:
        return _as_base


_WRITERS = _Writers(
    {
        str: _as_is,
        bool: _as_is,
        type(None): _as_is,
        list: _tagged_list,
        dict: _tagged_dict,
        int: _tagged_int,
        float: _tagged_float,
        tuple: lambda value, atoms: {"$t": _all(value, atoms)},
        set: lambda value, atoms: {"$s": _all(value, atoms)},
        frozenset: lambda value, atoms: {"$f": _all(value, atoms)},
        datetime: _tagged_datetime,
        time: _tagged_time,
        date: lambda value, atoms: {"$d": value},
        timedelta: lambda value, atoms: {"$p": [value.days, value.seconds, value.microseconds]},
        Decimal: lambda value, atoms: {"$n": str(value)},
        UUID: lambda value, atoms: {"$u": value},
        bytes: lambda value, atoms: {"$b": b2a_base64(value, newline=False).decode()},
    }
)


def _wrong(value: Any) -> str:
    if isinstance(value, str):
        return wrong_text(value)
    if isinstance(value, datetime | time) and value.tzinfo is not None and value.utcoffset() is None:
        return "" if _is_named(value.tzinfo) else f"{kind_of(value)} in a zone without an offset"
    if type(value) in _WRITERS or isinstance(value, int | list | dict):
        return ""
    return kind_of(value)


def _untagged(value: Any) -> Any:
    """In place: what was read from JSON belongs to nobody else."""
    if type(value) is dict:
        return _untagged_dict(value)
    if type(value) is list:
        for index, item in enumerate(value):
            kind = type(item)
            if kind is dict:
                value[index] = _untagged_dict(item)
            elif kind is list:
                _untagged(item)
    return value


def _untagged_dict(value: dict[str, Any]) -> Any:
    if len(value) == 1:
        tag, content = value.popitem()
        read = _READERS.get(tag)
        if read is not None:
            return read(content)
        if tag[:1] == "$":  # of a later version
            raise LookupError(tag)
        value[tag] = content
    return _untagged_items(value)


def _untagged_items(value: dict[str, Any]) -> dict[str, Any]:
    for key, item in value.items():
        kind = type(item)
        if kind is dict:
            value[key] = _untagged_dict(item)
        elif kind is list:
            _untagged(item)
    return value


def _list(content: Any) -> list[Any]:
    if type(content) is not list:
        raise TypeError("no list")
    items: list[Any] = _untagged(content)
    return items


def _dict(content: Any) -> dict[Any, Any]:
    parts = _list(content)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _uuid(content: str) -> UUID:
    digits = content.replace("-", "")
    if len(digits) != 32:
        raise ValueError("no UUID")
    value = object.__new__(UUID)  # its own way through six optional arguments takes twice the time
    _set_int(value, int(digits, 16))
    _set_safe(value, _SAFE_UNKNOWN)
    return value


def _datetime(content: Any) -> datetime:
    if type(content) is str:
        return datetime.fromisoformat(content)
    text, zone, fold = content
    value = datetime.fromisoformat(text).replace(fold=fold)
    return value if zone is None else value.replace(tzinfo=ZoneInfo(zone))


def _time(content: Any) -> time:
    if type(content) is str:
        return time.fromisoformat(content)
    text, zone, fold = content
    value = time.fromisoformat(text).replace(fold=fold)
    return value if zone is None else value.replace(tzinfo=ZoneInfo(zone))


_READERS: dict[str, Callable[[Any], Any]] = {
    "$": _untagged_items,
    "$t": lambda content: tuple(_list(content)),
    "$s": lambda content: set(_list(content)),
    "$f": lambda content: frozenset(_list(content)),
    "$m": _dict,
    "$w": _datetime,
    "$a": _time,
    "$d": date.fromisoformat,
    "$p": lambda content: timedelta(*content),
    "$n": Decimal,
    "$u": _uuid,
    "$b": lambda content: b64decode(content, validate=True),
    "$i": lambda content: int(content, 16),
    "$r": float,
}
