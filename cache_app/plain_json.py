"""JSON for values that read back as they were: the rest is refused, with the place at which it stands. Pure.

orjson writes a tuple as a list, a UUID as its text, a member of an Enum as its value and a subclass of str, int, dict or
list as that: allowed. It writes NaN and the infinities as null, which loses them: refused.
"""

from __future__ import annotations

import gc
import math
import re
from collections.abc import Callable
from enum import Enum
from typing import Any
from uuid import UUID

import orjson

# By default orjson writes these as text, and nothing says so when they are read back.
OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
MAX_DEPTH = 254  # levels that orjson writes

EXACT: frozenset[type] = frozenset({dict, list, str, int, float, bool, type(None)})
_READ_ALIKE = EXACT | {tuple}
# In 10 kB without one, a compiled pattern takes 60 % of the time of `in`.
holds_null = re.compile(rb"null").search


class Uncacheable(TypeError):
    """The value has no form that reads back as what it was; the text names the type and where it stands."""


def dumps(value: Any) -> bytes:
    """Raises Uncacheable."""
    try:
        body = orjson.dumps(value, option=OPTIONS)
    except TypeError as error:
        raise Uncacheable(first_wrong(value, _wrong) or str(error)) from error
    if holds_null(body) and not consists_of(value, _READ_ALIKE, check_floats=True):
        found = first_wrong(value, _wrong)
        if found:
            raise Uncacheable(found)
    return body


def consists_of(value: Any, kinds: frozenset[type], *, check_floats: bool) -> bool:
    """Whether it is made of objects of exactly these types, and, where asked, its floats are finite.

    For values that orjson has written: a cycle would have no end here. It goes level by level through what the garbage
    collector sees in the containers, in less than half the time of a loop over each item.
    """
    level = [value]
    while level:
        found = set(map(type, level))
        if not found <= kinds:
            return False
        if check_floats and float in found and not all(map(math.isfinite, _floats(level))):
            return False
        level = gc.get_referents(*level)
    return True


def _floats(level: list[Any]) -> list[float]:
    return [item for item in level if type(item) is float]


def first_wrong(value: Any, wrong: Callable[[Any], str], path: str = "value", depth: int = 0) -> str:
    """`value['rows'][3] is a set`: the first place of which `wrong` says something. "": nowhere.

    Slow: for the text of an error.
    """
    if depth > MAX_DEPTH:
        return "value is nested too deeply, or holds itself"
    if reason := wrong(value):
        return f"{path} is {reason}"
    for place, inner in _inside(value, path):
        if found := first_wrong(inner, wrong, place, depth + 1):
            return found
    return ""


def _inside(value: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        keys = [(f"{path}.key({_short(key)})", key) for key in value if type(key) is not str]
        return keys + [(f"{path}[{_short(key)}]", item) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        return [(f"{path}.member({_short(item)})", item) for item in value]
    return []


def _short(key: Any) -> str:
    text = repr(key)
    return text if len(text) <= 40 else text[:37] + "…"


def _wrong(value: Any) -> str:
    if isinstance(value, Enum):
        return _wrong(value.value)
    if isinstance(value, dict):
        return next((f"a dict with {kind_of(key)} as a key" for key in value if type(key) is not str), "")
    if type(value) is float:
        return "" if math.isfinite(value) else f"the float {value}"
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return "an int beyond 64 bits"
    if isinstance(value, str):
        return wrong_text(value)
    if value is None or isinstance(value, int | list | UUID) or type(value) is tuple:
        return ""
    return kind_of(value)


def wrong_text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        return "a text with a lone surrogate"
    return ""


def kind_of(value: Any) -> str:
    name = type(value).__qualname__
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"
