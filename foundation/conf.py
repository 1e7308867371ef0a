"""How an app declares its settings: a frozen dataclass with defaults, units and ranges, bound once by the site.

    site: settings.BRAIN["GATEWAY"] → read(GatewayConf, …) → (conf, problems) → gateway.conf.conf.bind(conf)

A problem never stops the reading: the default stands in, and the site's system check reports it with its hint.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a section. kind: "key" (unknown), "type" or "range"."""

    kind: str
    message: str
    hint: str


def setting(
    default: Any, *, low: float | None = None, high: float | None = None, choices: tuple[Any, ...] = ()
) -> Any:
    """A dataclass field with its accepted values: low and high are inclusive, choices lists all that is allowed."""
    limits = {"low": low, "high": high, "choices": choices}
    if isinstance(default, list | dict | set):
        raise TypeError("a setting's default is immutable: use a tuple, or a MappingProxyType")
    if isinstance(default, types.MappingProxyType):
        return field(default_factory=lambda: default, metadata=limits)
    return field(default=default, metadata=limits)


def read(section: str, shape: type[T], values: object) -> tuple[T, list[Problem]]:
    """`values` of BRAIN[section] as an instance of `shape`, and what was wrong with them. A wrong value keeps its default."""
    return read_from(f"BRAIN[{section!r}]", shape, values)


def read_from(where: str, shape: type[T], values: object) -> tuple[T, list[Problem]]:
    """The same for a dict that stands elsewhere in the settings. where: how its author spells it."""
    if not isinstance(values, Mapping):
        hint = f"Write {where} = {{...}}."
        return shape(), [Problem("type", f"{where} is a {type(values).__name__}, not a dict.", hint)]
    hints = get_type_hints(shape)
    limits = {f.name: f.metadata for f in fields(shape)}  # type: ignore[arg-type]
    good: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, value in values.items():
        if key not in hints:
            problems.append(unknown_key(key, where, list(hints)))
            continue
        wrong = _wrong_type(value, hints[key]) or _out_of_range(value, limits[key])
        if wrong is None:
            good[key] = _settled(value, hints[key])
        else:
            kind, text, hint = wrong
            problems.append(Problem(kind, f"{where}[{key!r}] = {value!r} {text}.", hint))
    return shape(**good), problems


def unknown_key(key: object, where: str, known: list[str]) -> Problem:
    close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
    hint = f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(sorted(known))}."
    return Problem("key", f"Unknown key {key!r} in {where}.", hint)


def _settled(value: Any, expected: Any) -> Any:
    """As the frozen dataclass holds it: 5 for a float is 5.0, a list for a tuple is a tuple, a dict cannot be changed."""
    if expected is float:
        return float(value)
    if get_origin(expected) is Mapping:
        return types.MappingProxyType(dict(value))
    return tuple(value) if isinstance(value, list) else value


def _wrong_type(value: object, expected: Any) -> tuple[str, str, str] | None:
    if _fits(value, expected):
        return None
    return "type", f"is a {type(value).__name__}", f"Give it as {_spelt(expected)}."


def _fits(value: object, expected: Any) -> bool:
    origin = get_origin(expected)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in get_args(expected))
    if origin is tuple:
        item = get_args(expected)[0]
        return isinstance(value, tuple | list) and all(_fits(part, item) for part in value)
    if origin is Mapping:
        key, item = get_args(expected)
        return isinstance(value, Mapping) and all(_fits(k, key) and _fits(v, item) for k, v in value.items())
    if expected is type(None):
        return value is None
    if isinstance(value, bool):  # True is an int to Python, never to the author of a setting
        return expected is bool
    if expected is float:
        return isinstance(value, int | float)
    return isinstance(value, expected)


def _spelt(expected: Any) -> str:
    if get_origin(expected) is Mapping:
        return f"dict[{', '.join(map(_spelt, get_args(expected)))}]"
    return expected.__name__ if isinstance(expected, type) and not get_args(expected) else str(expected)


def _out_of_range(value: Any, limits: Mapping[str, Any]) -> tuple[str, str, str] | None:
    low, high, choices = limits.get("low"), limits.get("high"), limits.get("choices")
    if choices and value not in choices:
        return "range", "is not one of the accepted values", f"Use one of {', '.join(map(repr, choices))}."
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Written so that NaN, which compares to nothing, is out of every range.
    if (low is None or value >= low) and (high is None or value <= high) and value == value:
        return None
    return "range", "is out of range", f"Use a value {_range(low, high)}."


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"from {low} to {high}"
    return f"of at least {low}" if high is None else f"of at most {high}"


class Bound(Generic[T]):
    """The conf of one app: `conf()` anywhere at run time gives the bound dataclass, defaults before the site binds.

    Call it where a value is used, never at import time: the site binds when the app registry is ready.
    """

    def __init__(self, section: str, shape: type[T]) -> None:
        self.section, self.shape = section, shape
        self._value = shape()

    def __call__(self) -> T:
        return self._value

    def bind(self, value: T) -> None:
        self._value = value
