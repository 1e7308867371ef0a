"""JSON in and out without changing a number: orjson, and where it would round, each number kept as it was written."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import orjson

# A run of 16 digits may be more than a float or 64 bits hold; an exponent may be written back in another way.
_RUNS = bytes.maketrans(b"123456789.E", b"0000000000e")
_LONG, _EXPONENT = b"0" * 16, b"0e"


class Number:
    """A number as it was written."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def loads(text: bytes) -> Any:
    """Numbers that orjson could change are `Number`. Of equal keys the last one counts. Raises ValueError."""
    runs = text.translate(_RUNS)
    if _LONG not in runs and _EXPONENT not in runs:
        return orjson.loads(text)
    try:
        return json.loads(text.decode(), parse_int=_whole, parse_float=Number, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def dumps(value: Any) -> bytes:
    """Raises ValueError for what is no JSON: nested deeper than 254, half of a surrogate pair."""
    try:
        return orjson.dumps(value, _written)
    except TypeError as error:
        raise ValueError(str(error)) from error


def _whole(text: str) -> int | Number:
    return int(text) if len(text) < 19 and text != "-0" else Number(text)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _written(value: object) -> orjson.Fragment:
    if type(value) is Number:
        return orjson.Fragment(value.text)
    raise TypeError(f"{type(value).__name__} is no JSON")
