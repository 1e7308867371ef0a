"""Which key a call gets: readable, equal for equal calls, different for different ones, bounded in length. Pure."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

_DEFAULT_DB = "default"  # the rows of others have the same primary keys
MAX_ARGUMENTS = 120  # characters; longer ones are replaced by their digest


class Unkeyable(TypeError):
    """An argument has no stable text to build a key from."""


def call_key(prefix: str, function: str, version: int, arguments: Mapping[str, Any]) -> str:
    """`prefix:cached:function:version(a=1,b='x')`; long arguments as `#` and 32 hex digits of their BLAKE2b.

    arguments: bound to the function's signature with the defaults applied, so that `f(1)` and `f(a=1)` are one call.
    """
    text = ",".join(f"{name}={canonical(value)}" for name, value in arguments.items())
    return f"{stem(prefix, function, version)}{bounded(text)}"


def stem(prefix: str, function: str, version: int | str) -> str:
    """What the keys of all calls of a function begin with."""
    return f"{prefix}:cached:{function}:{version}"


def varied(text: str, surroundings: Sequence[Any]) -> str:
    """The text of the arguments, and of what else the result depends on: `a=1|'en'|'tenant'`."""
    return "|".join((text, *map(canonical, surroundings)))


class Arguments:
    """From the arguments of a call to their text: `a=1,b='x'`, however they are spelt, with the defaults."""

    def __init__(self, signature: inspect.Signature) -> None:
        self.signature = signature
        parameters = list(signature.parameters.values())
        # Most functions have neither *args nor **kwargs: then the names are matched here, in a fraction of bind's time.
        self._is_plain = all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters)
        self._positional = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
        self._names = [p.name for p in parameters]
        self._heads = [f"{p.name}=" for p in parameters]
        self._defaults = [_default(p) for p in parameters]
        self._tails = [_tail(self._defaults[given:], given) for given in range(self._positional + 1)]

    def text(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Raises TypeError for arguments that the function does not take, Unkeyable for one without a stable text."""
        if not self._is_plain or len(args) > self._positional:
            return self._bound(args, kwargs)
        if kwargs:
            return self._named(args, kwargs)
        tail = self._tails[len(args)]
        if tail is None:
            return self._bound(args, kwargs)
        return (
            ",".join([head + canonical(value) for head, value in zip(self._heads, args, strict=False)]) + tail
        )

    def _named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        parts = [head + canonical(value) for head, value in zip(self._heads, args, strict=False)]
        left = len(kwargs)
        for at in range(len(args), len(self._names)):
            name = self._names[at]
            if name in kwargs:
                left -= 1
                parts.append(self._heads[at] + canonical(kwargs[name]))
            elif (default := self._defaults[at]) is not None:
                parts.append(default)
            else:
                return self._bound(args, kwargs)
        return ",".join(parts) if not left else self._bound(args, kwargs)

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return ",".join(f"{name}={canonical(value)}" for name, value in bound.arguments.items())


def _tail(defaults: Sequence[str | None], given: int) -> str | None:
    """What follows the first `given` arguments where no other is; None: that needs a closer look."""
    texts = [default for default in defaults if default is not None]
    if len(texts) < len(defaults):
        return None
    return ("," if given and texts else "") + ",".join(texts)


def _default(parameter: inspect.Parameter) -> str | None:
    """None: it has no default, or one whose text must be made anew for each call."""
    if type(parameter.default) not in _EXACT:
        return None
    return f"{parameter.name}={canonical(parameter.default)}"


def bounded(text: str) -> str:
    """`(text)`, or `#digest` where it is long. One starts with "(" and the other with "#": they never meet."""
    if len(text) <= MAX_ARGUMENTS:
        return f"({text})"
    # Sixteen bytes: a collision is expected after 2**64 different calls of one function.
    return "#" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def canonical(value: Any) -> str:
    """A text that says the type too: 1, 1.0, True and '1' are four keys; sets and dicts are sorted by it."""
    plain = _EXACT.get(type(value))
    return plain(value) if plain is not None else _canonical(value)


_EXACT: dict[type, Callable[[Any], str]] = dict.fromkeys((str, int, float, bool, bytes, type(None)), repr)


def _canonical(value: Any) -> str:
    match value:
        case None | bool():
            return repr(value)
        case Enum():
            if value.name is None:  # of a Flag: no bit that has a name
                return f"{_kind(value)}({canonical(value.value)})"
            return f"{_kind(value)}.{value.name}"
        case int():
            return f"{_kind(value)}({int.__repr__(value)})"
        case float():
            return f"{_kind(value)}({float.__repr__(value)})"
        case str():  # one that is safe in HTML as it stands is another than the text that is not
            return f"{_kind(value)}({str.__repr__(value)})"
        case bytes():
            return f"{_kind(value)}({bytes.__repr__(value)})"
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


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _joined(values: tuple[Any, ...] | list[Any]) -> str:
    return ",".join(canonical(item) for item in values)


def _saved_row(value: Any) -> str:
    """A saved Django model instance is its label and primary key; anything else has no stable text (repr: an address)."""
    label, key = getattr(getattr(value, "_meta", None), "label_lower", None), getattr(value, "pk", None)
    if label is None or key is None:
        raise Unkeyable(f"no cache key from a {type(value).__qualname__}: give @cached a key= function")
    db = getattr(getattr(value, "_state", None), "db", None) or _DEFAULT_DB
    return f"{label}({canonical(key)})" if db == _DEFAULT_DB else f"{label}@{db}({canonical(key)})"
