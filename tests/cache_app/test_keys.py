from __future__ import annotations

import enum
import inspect
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from django.utils.safestring import SafeString
from hypothesis import given
from hypothesis import strategies as st

from cache_app import keys


class Colour(enum.IntEnum):
    RED = 1


class Rights(enum.IntFlag):
    READ = 1


class Whole(int):
    pass


SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.decimals(allow_nan=False)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def typed(value: Any) -> Any:
    """Equality that tells 1 from True and a list from a tuple."""
    if isinstance(value, list | tuple):
        return type(value), [typed(item) for item in value]
    if isinstance(value, dict):
        return dict, sorted((key, repr(typed(item))) for key, item in value.items())
    return type(value), repr(value)


@given(VALUES, VALUES)
def test_canonical__two_values__one_text_only_when_they_are_the_same(left: Any, right: Any) -> None:
    assert (keys.canonical(left) == keys.canonical(right)) == (typed(left) == typed(right))


def test_canonical__flags_without_a_name__differ() -> None:
    flags = [Rights(0), Rights(8), Rights(16), Rights(9), Rights.READ]
    assert len({keys.canonical(flag) for flag in flags}) == len(flags)


def test_canonical__rows_of_two_databases__differ() -> None:
    def row(db: str | None) -> Any:
        return SimpleNamespace(
            _meta=SimpleNamespace(label_lower="shop.order"), pk=7, _state=SimpleNamespace(db=db)
        )

    assert keys.canonical(row("default")) == keys.canonical(row(None)) == "shop.order(7)"
    assert keys.canonical(row("tenant")) == "shop.order@tenant(7)"


def test_canonical__look_alikes__differ() -> None:
    alike = [
        1,
        True,
        1.0,
        Whole(1),
        "1",
        SafeString("1"),
        b"1",
        Decimal(1),
        Colour.RED,
        (1,),
        [1],
        {1},
        {1: 1},
        date(1, 1, 1),
        timedelta(1),
        None,
    ]
    assert len({keys.canonical(value) for value in alike}) == len(alike)


def test_canonical__order_of_a_dict_or_set__does_not_matter() -> None:
    assert keys.canonical({"a": 1, "b": 2}) == keys.canonical({"b": 2, "a": 1})
    assert keys.canonical({"x", "y", "z"}) == keys.canonical({"z", "y", "x"})


def test_canonical__moment_and_uuid__are_readable() -> None:
    assert keys.canonical(datetime(2026, 1, 2, tzinfo=UTC)) == "datetime(2026-01-02T00:00:00+00:00,UTC,0)"
    assert keys.canonical(UUID(int=1)) == "UUID(00000000-0000-0000-0000-000000000001)"


def test_canonical__saved_row__is_label_and_primary_key() -> None:
    row = SimpleNamespace(_meta=SimpleNamespace(label_lower="orm_app.user"), pk=7)
    assert keys.canonical(row) == "orm_app.user(7)"


@pytest.mark.parametrize(
    "value", [object(), SimpleNamespace(_meta=SimpleNamespace(label_lower="a.b"), pk=None)]
)
def test_canonical__object_without_a_stable_text__raises(value: object) -> None:
    with pytest.raises(keys.Unkeyable, match="key= function"):
        keys.canonical(value)


def test_call_key__short_arguments__are_readable() -> None:
    assert (
        keys.call_key("brain", "shop.total", 2, {"user": 7, "kind": "a"})
        == "brain:cached:shop.total:2(user=7,kind='a')"
    )


def test_call_key__long_arguments__are_bounded_and_still_differ() -> None:
    one = keys.call_key("brain", "f", 1, {"text": "x" * 10_000})
    other = keys.call_key("brain", "f", 1, {"text": "x" * 10_001})
    assert len(one) < 60
    assert one != other


# --- the arguments of a call -----------------------------------------------------------------------------------------
def plain(a: Any, b: Any = 2, *, c: Any = "x", d: Any = (1, 2)) -> None: ...


def simple(a: Any, b: Any = 2, c: Any = None) -> None: ...


def open_ended(a: Any, /, *rest: Any, **named: Any) -> None: ...


def nothing() -> None: ...


CALLS: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (plain, (1,), {}),
    (plain, (1, 3), {"c": "y"}),
    (plain, (), {"a": 1, "d": [1]}),
    (simple, (1,), {}),
    (simple, (1, 2, 3), {}),
    (simple, (), {"c": 1, "a": {"x": 1}}),
    (simple, (True,), {"b": 1.0}),
    (open_ended, (1, 2, 3), {"x": 1}),
    (open_ended, (1,), {}),
    (nothing, (), {}),
]


@pytest.mark.parametrize(("function", "args", "kwargs"), CALLS)
def test_arguments__however_they_are_spelt__are_the_text_of_the_bound_call(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    signature = inspect.signature(function)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    expected = keys.call_key("p", "f", 1, bound.arguments).removeprefix("p:cached:f:1(").removesuffix(")")
    assert keys.Arguments(signature).text(args, kwargs) == expected


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, 2, 3, 4), {}), ((1,), {"a": 2}), ((1,), {"z": 2}), ((), {"b": 1})],
)
def test_arguments__that_the_function_does_not_take__are_a_type_error_as_in_the_call(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(TypeError) as expected:
        simple(*args, **kwargs)
    with pytest.raises(TypeError) as caught:
        keys.Arguments(inspect.signature(simple)).text(args, kwargs)
    assert type(caught.value) is type(expected.value)


def test_arguments__default_that_changes__is_looked_at_in_each_call() -> None:
    kept: list[int] = []

    def function(a: Any = kept) -> None: ...

    arguments = keys.Arguments(inspect.signature(function))
    assert arguments.text((), {}) == "a=[]"
    kept.append(1)
    assert arguments.text((), {}) == "a=[1]"


def test_varied__surroundings__are_told_from_arguments() -> None:
    assert keys.varied("a=1", ["en", 7]) == "a=1|'en'|7"
    assert keys.varied("a='x'", ["y"]) != keys.varied("a='x|'", ["y"])
