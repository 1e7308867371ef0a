from __future__ import annotations

import math
from collections import defaultdict, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_app import typed_json
from cache_app.plain_json import Uncacheable
from tests.depth import examples

BERLIN = ZoneInfo("Europe/Berlin")
PLUS_TWO = timezone(timedelta(hours=2))
ODD = timezone(timedelta(hours=1, seconds=7))


class Number(IntEnum):
    TWO = 2


class Word(StrEnum):
    A = "a"


class Colour(Enum):
    RED = "red"


class Nowhere(tzinfo):
    def utcoffset(self, dt: datetime | None) -> None:
        return None


Point = namedtuple("Point", "x y")
LOOP: dict[str, Any] = {}
LOOP["a"] = [LOOP, (1,)]


def through(value: Any) -> Any:
    body, is_tagged = typed_json.dumps(value)
    return typed_json.loads(body) if is_tagged else orjson.loads(body)


def shape(value: Any) -> Any:
    """With the type of each part: 1, 1.0 and True are equal to Python, and so are instants in different zones."""
    match value:
        case dict():
            # Members of a set have no order.
            return dict, [(shape(key), shape(item)) for key, item in value.items()]
        case list() | tuple():
            return type(value), [shape(item) for item in value]
        case set() | frozenset():
            return type(value), sorted(map(repr, map(shape, value)))
        case datetime() | time():
            zone = value.tzinfo
            return type(value), value.isoformat(), value.fold, getattr(zone, "key", None), zone is None
    return type(value), hex(value) if isinstance(value, int) else repr(value)


ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**62, max_value=2**66)
    | st.floats()
    | st.text()
    | st.sampled_from(["$", "$t", "$m", "$d", "$zz"])
    | st.binary(max_size=12)
    | st.decimals().filter(lambda value: not value.is_snan())  # which cannot be hashed
    | st.uuids()
    | st.dates()
    | st.times(timezones=st.none() | st.just(UTC) | st.just(PLUS_TWO) | st.just(BERLIN))
    | st.datetimes(timezones=st.none() | st.sampled_from([UTC, PLUS_TWO, ODD, BERLIN, ZoneInfo("UTC")]))
    | st.timedeltas()
)
# Deferred, because Hypothesis warns of a strategy whose text is very long.
KEYS = st.deferred(lambda: ATOMS | st.lists(ATOMS, max_size=3).map(tuple) | st.frozensets(ATOMS, max_size=3))
VALUES = st.recursive(
    ATOMS | KEYS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.sets(KEYS, max_size=4)
        | st.frozensets(KEYS, max_size=4)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.dictionaries(st.sampled_from(["$", "$t", "$m", "$s", "$x", ""]), inner, max_size=1)
    ),
    max_leaves=15,
)


@settings(max_examples=examples(300), deadline=None)
@given(VALUES)
def test_through__any_value__keeps_every_type(value: Any) -> None:
    assert shape(through(value)) == shape(value)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
        datetime(2026, 10, 25, 2, 30, fold=1),  # noqa: DTZ001  (naive on purpose)
        datetime(2026, 10, 25, 2, 30, tzinfo=PLUS_TWO, fold=1),
        datetime(1, 1, 1, 0, 0, 0, 1),  # noqa: DTZ001
        datetime(1890, 1, 1, tzinfo=BERLIN),
        time(2, 30, fold=1),
        time(2, 30, tzinfo=BERLIN),
        timedelta.min,
        timedelta.max,
        Decimal("-0E+5"),
        Decimal("sNaN12"),
        -math.inf,
        10**5000,
        -(2**63) - 1,
        {"$": {"$": {"$t": ()}}},
        {"$t": [1]},
        [{"$m": [1, 2], "b": (1,)}],
        {(1, (2,)): {frozenset([1]): {1.5, None}}},
        {1: "a", "1": "b", True is None: "c"},
        {},
        (),
    ],
    ids=lambda value: repr(value)[:40] if not isinstance(value, int) else "int",
)
def test_through__corner__keeps_every_type(value: Any) -> None:
    assert shape(through([value, value])) == shape([value, value])


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (Number.TWO, 2),
        ({"a": (Word.A,)}, {"a": ("a",)}),
        (defaultdict(list, a={1}), {"a": {1}}),
        ({Word.A: 1, "b": 2}, {"a": 1, "b": 2}),
    ],
)
def test_through__subclass_of_what_json_has__reads_back_as_that(value: Any, read: Any) -> None:
    assert shape(through(value)) == shape(read)


@pytest.mark.parametrize(
    "value", [None, 1, "x", 1.5, [None, {"a": [1.5]}], {"$t": [1]}, 2**64 - 1, {"$d": "x", "b": "null"}]
)
def test_dumps__value_that_json_has__is_plain_json(value: Any) -> None:
    assert typed_json.dumps(value) == (orjson.dumps(value), False)


def test_dumps__one_special_value__leaves_the_caller_his_own() -> None:
    inner = {"when": date(2026, 1, 1), "tags": ["a"]}
    value = {"rows": [inner, {"x": 1}], "big": [2**70]}
    through(value)
    assert value == {"rows": [{"when": date(2026, 1, 1), "tags": ["a"]}, {"x": 1}], "big": [2**70]}
    assert value["rows"][0] is inner


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([object()], "value[0] is an object"),
        ({"a": (1, {"b": Colour.RED})}, "value['a'][1]['b'] is a Colour"),
        ([Point(1, 2)], "value[0] is a Point"),
        ({(1, Colour.RED): 2}, "value.key((1, <Colour.RED: 'red'>))[1] is a Colour"),
        ({"a": {Colour.RED}}, "value['a'].member(<Colour.RED: 'red'>) is a Colour"),
        (("x", "\ud800"), "value[1] is a text with a lone surrogate"),
        ([bytearray(b"x")], "value[0] is a bytearray"),
        ([datetime(2026, 1, 1, tzinfo=Nowhere())], "value[0] is a datetime in a zone without an offset"),
        (LOOP, "value is nested too deeply, or holds itself"),
    ],
)
def test_dumps__what_has_no_form__is_refused_with_its_place(value: Any, said: str) -> None:
    with pytest.raises(Uncacheable) as refused:
        typed_json.dumps(value)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    "level", [lambda value: (value,), lambda value: {1: value}, lambda value: {"a": value}]
)
def test_through__nesting__reads_back_or_is_refused(level: Any) -> None:
    value: Any = b"x"
    for depth in range(1, 400):
        value = level(value)
        if depth % 50 == 0:
            try:
                assert through(value) == value
            except Uncacheable:
                assert depth > 80
                return
    pytest.fail("no limit")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"$zz":1}',
        b'{"$t":"abc"}',
        b'{"$t":{"a":1}}',
        b'{"$s":[[1]]}',
        b'{"$m":[1]}',
        b'{"$m":[[],1]}',
        b'{"$":[1]}',
        b'{"$w":"soon"}',
        b'{"$w":5}',
        b'{"$w":["2026-01-01T00:00:00","Europe",0]}',
        b'{"$w":["2026-01-01T00:00:00","Nowhere/City",0]}',
        b'{"$w":["2026-01-01T00:00:00","../../etc/passwd",0]}',
        b'{"$w":["2026-01-01T00:00:00",null,7]}',
        b'{"$a":[1,2]}',
        b'{"$d":7}',
        b'{"$p":[1e300,0,0]}',
        b'{"$p":["a"]}',
        b'{"$n":"one"}',
        b'{"$n":{}}',
        b'{"$u":"00"}',
        b'{"$u":7}',
        b'{"$b":"a"}',
        b'{"$b":"\xc3\xbc"}',
        b'{"$i":"xyz"}',
        b'{"$r":[]}',
        b"[" * 1000 + b"]" * 1000,
        b'{"$t":[' * 500 + b"]}" * 500,
    ],
)
def test_loads__broken_text__is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        typed_json.loads(body)
