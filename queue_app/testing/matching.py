"""Whether a value is what a test expects, and where it is not: nested dicts as subsets, callables and types as conditions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

_LONGEST = 200  # characters of a value in a message


class Difference(NamedTuple):
    """At `path` one thing was expected, as text, and another was found."""

    path: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}, found {self.found}"


def differences(expected: Any, found: Any, path: str = "payload") -> list[Difference]:
    """What keeps `found`, a value as JSON has it, from being `expected`; none: it fits.

    expected: a dict fits when each of its keys does, whatever else there is; a list when it is as long and each element
    fits; a callable when it answers something true; a type when it is an instance; anything else when it is equal.
    """
    if isinstance(expected, type):
        fits = isinstance(found, expected) and (expected is bool or not isinstance(found, bool))
        return (
            [] if fits or expected is object else [Difference(path, f"a {expected.__name__}", shown(found))]
        )
    if callable(expected):
        return _judged(expected, found, path)
    if isinstance(expected, Mapping):
        return _in_dict(expected, found, path)
    if isinstance(expected, list | tuple):
        return _in_list(expected, found, path)
    return [] if _is_equal(expected, found) else [Difference(path, shown(expected), shown(found))]


def at_time(
    path: str, expected: datetime | None, found: datetime | None, tolerance_s: float
) -> list[Difference]:
    """None: no time at all."""
    if expected is None or found is None:
        return [] if expected is found else [Difference(path, _moment(expected), _moment(found))]
    if abs(found - expected) <= timedelta(seconds=tolerance_s):
        return []
    return [Difference(path, f"{_moment(expected)} (±{tolerance_s:g} s)", _moment(found))]


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,} characters)"


def name_of(condition: Callable[..., Any]) -> str:
    return str(getattr(condition, "__qualname__", repr(condition)))


def _in_dict(expected: Mapping[Any, Any], found: Any, path: str) -> list[Difference]:
    if not isinstance(found, Mapping):
        return [Difference(path, "an object", shown(found))]
    different: list[Difference] = []
    for key, value in expected.items():
        if key in found:
            different += differences(value, found[key], f"{path}.{key}")
        else:
            what = f"what {name_of(value)} accepts" if callable(value) else shown(value)
            different.append(Difference(f"{path}.{key}", what, "no such key"))
    return different


def _in_list(expected: Sequence[Any], found: Any, path: str) -> list[Difference]:
    if not isinstance(found, list | tuple):
        return [Difference(path, "a list", shown(found))]
    if len(found) != len(expected):
        return [Difference(path, f"a list of {len(expected)}", f"a list of {len(found)}")]
    pairs = zip(expected, found, strict=True)
    return [one for number, pair in enumerate(pairs) for one in differences(*pair, path=f"{path}[{number}]")]


def _judged(condition: Callable[[Any], Any], found: Any, path: str) -> list[Difference]:
    what = f"what {name_of(condition)} accepts"
    try:
        return [] if condition(found) else [Difference(path, what, shown(found))]
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        told = f"{shown(found)}, for which it raised {type(error).__name__}"
        return [Difference(path, what, told)]


def _is_equal(expected: Any, found: Any) -> bool:
    """True is not 1 here, as it is not in JSON. NaN cannot be in a payload."""
    if isinstance(expected, bool) != isinstance(found, bool) and isinstance(expected, bool | int | float):
        return False
    if isinstance(expected, float) and isinstance(found, float):
        return math.isclose(expected, found, rel_tol=1e-15, abs_tol=0.0)
    return bool(expected == found)


def _moment(at: datetime | None) -> str:
    return "at once" if at is None else f"{at:%Y-%m-%d %H:%M:%S.%f}"[:-3] + f"{at:%z}"
