"""Which key a call gets: readable, equal for equal calls, different for different ones, bounded in length. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

MAX_ARGUMENTS = 120  # characters; longer ones are replaced by their digest


class Unkeyable(TypeError):
    """An argument has no stable text to build a key from."""


def call_key(prefix: str, function: str, version: int, arguments: Mapping[str, Any]) -> str:
    """`prefix:cached:function:version(a=1,b='x')`; long arguments as `#` and 32 hex digits of their BLAKE2b.

    arguments: bound to the function's signature with the defaults applied, so that `f(1)` and `f(a=1)` are one call.
    """
    text = ",".join(f"{name}={canonical(value)}" for name, value in arguments.items())
    return f"{prefix}:cached:{function}:{version}{bounded(text)}"


def bounded(text: str) -> str:
    """`(text)`, or `#digest` where it is long. One starts with "(" and the other with "#": they never meet."""
    if len(text) <= MAX_ARGUMENTS:
        return f"({text})"
    # Sixteen bytes: a collision is expected after 2**64 different calls of one function.
    return "#" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def canonical(value: Any) -> str:
    """A text that says the type too: 1, 1.0, True and '1' are four keys; sets and dicts are sorted by it."""
    match value:
        case None | bool():
            return repr(value)
        case Enum():
            return f"{type(value).__module__}.{type(value).__qualname__}.{value.name}"
        case int():
            return int.__repr__(value)
        case float():
            return float.__repr__(value)
        case str():
            return str.__repr__(value)
        case bytes():
            return bytes.__repr__(value)
        case datetime():
            return f"datetime({value.isoformat()},{value.tzinfo},{value.fold})"
        case date() | time():
            return f"{type(value).__name__}({value.isoformat()})"
        case Decimal() | UUID():
            return f"{type(value).__name__}({value})"
        case timedelta():
            return f"timedelta({value.days},{value.seconds},{value.microseconds})"
        case tuple():
            return f"tuple({_joined(value)})"
        case list():
            return f"[{_joined(value)}]"
        case set() | frozenset():
            return f"set({','.join(sorted(canonical(item) for item in value))})"
        case Mapping():
            pairs = sorted(f"{canonical(key)}:{canonical(item)}" for key, item in value.items())
            return f"{{{','.join(pairs)}}}"
    return _saved_row(value)


def _joined(values: tuple[Any, ...] | list[Any]) -> str:
    return ",".join(canonical(item) for item in values)


def _saved_row(value: Any) -> str:
    """A saved Django model instance is its label and primary key; anything else has no stable text (repr: an address)."""
    label, key = getattr(getattr(value, "_meta", None), "label_lower", None), getattr(value, "pk", None)
    if label is None or key is None:
        raise Unkeyable(f"no cache key from a {type(value).__qualname__}: give @cached a key= function")
    return f"{label}({canonical(key)})"
