from __future__ import annotations

import math
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import orjson
import pytest

from cache_app import plain_json
from cache_app.plain_json import Uncacheable


class Text(str):
    __slots__ = ()


class Colour(Enum):
    RED = "red"


class Wrong(Enum):
    NAN = math.nan


Point = namedtuple("Point", "x y")


@dataclass
class Row:
    a: int


LOOP: list[Any] = []
LOOP += [LOOP, LOOP]


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ({"a": [1, None, "ü", True, 2.5]}, {"a": [1, None, "ü", True, 2.5]}),
        ((1, (2,)), [1, [2]]),
        (UUID(int=1), str(UUID(int=1))),
        (Colour.RED, "red"),
        (Text("x"), "x"),
        ([None, defaultdict(int, a=1), OrderedDict(b=2.5)], [None, {"a": 1}, {"b": 2.5}]),
        ([None, UUID(int=1), 1.5], [None, str(UUID(int=1)), 1.5]),
        (2**64 - 1, 2**64 - 1),
        ("null", "null"),
    ],
)
def test_dumps__what_json_has__reads_back(value: Any, read: Any) -> None:
    assert orjson.loads(plain_json.dumps(value)) == read


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC), "value is a datetime"),
        ({"rows": [1, {"at": date(2026, 1, 1)}]}, "value['rows'][1]['at'] is a date"),
        ([Decimal(1)], "value[0] is a Decimal"),
        (({"x": b"x"},), "value[0]['x'] is a bytes"),
        ({"a": {1}}, "value['a'] is a set"),
        ({"a": {1: 2}}, "value['a'] is a dict with an int as a key"),
        ({Text("a"): 2}, "value is a dict with a Text as a key"),
        ([Row(1)], "value[0] is a Row"),
        ([Point(1, 2)], "value[0] is a Point"),
        ([2**64], "value[0] is an int beyond 64 bits"),
        ({"a": "\ud800"}, "value['a'] is a text with a lone surrogate"),
        ([1.5, math.nan], "value[1] is the float nan"),
        ({"a": (None, -math.inf)}, "value['a'][1] is the float -inf"),
        ([defaultdict(int, a=math.inf)], "value[0]['a'] is the float inf"),
        ([Wrong.NAN], "value[0] is the float nan"),
        ({"k" * 60: object()}, "value['" + "k" * 36 + "…] is an object"),
        (LOOP, "value is nested too deeply, or holds itself"),
    ],
)
def test_dumps__what_would_read_back_as_something_else__is_refused_with_its_place(
    value: Any, said: str
) -> None:
    with pytest.raises(Uncacheable) as refused:
        plain_json.dumps(value)
    assert str(refused.value) == said


@pytest.mark.parametrize("depth", [254, 255])
def test_dumps__depth__up_to_that_of_orjson(depth: int) -> None:
    value: Any = None
    for _ in range(depth):
        value = [value]
    if depth > plain_json.MAX_DEPTH:
        with pytest.raises(Uncacheable, match="nested too deeply"):
            plain_json.dumps(value)
    else:
        assert plain_json.dumps(value).count(b"[") == depth


@pytest.mark.parametrize(
    ("value", "is_so"),
    [([{"a": 1}, [None]], True), ([{"a": (1,)}], False), ([UUID(int=1)], False), ("x", True)],
)
def test_consists_of__exact_types__at_any_depth(value: Any, is_so: bool) -> None:
    assert plain_json.consists_of(value, plain_json.EXACT, check_floats=True) is is_so


def test_consists_of__a_float_that_is_not_finite__counts_where_asked() -> None:
    value = {"a": [1.0, {"b": math.inf}]}
    assert plain_json.consists_of(value, plain_json.EXACT, check_floats=False)
    assert not plain_json.consists_of(value, plain_json.EXACT, check_floats=True)
