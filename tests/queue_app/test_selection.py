"""Which jobs are meant, as a decision: texts in, a shape or errors by field out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from queue_app import selection
from queue_app.selection import BadSelection, Selection

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def test_read__spans_and_times__moments_and_back_again() -> None:
    found = selection.read({"queue": "a", "since": "6h", "until": "2026-11-26T11:00Z", "task": ""}, NOW)
    assert found == Selection(
        queue="a", since=NOW - timedelta(hours=6), until=datetime(2026, 11, 26, 11, tzinfo=UTC)
    )
    assert selection.read(found.as_texts(), NOW + timedelta(days=3)) == found
    assert selection.read({"since": "2026-11-26"}, NOW).since == datetime(2026, 11, 26, tzinfo=UTC)
    assert selection.read({}, NOW).is_empty
    assert not found.is_empty


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("state", "dead"),
        ("state", "DEAD_LETTER "),
        ("since", "soon"),
        ("since", "0h"),
        ("since", "9999-13-01"),
        ("until", "0001-01-01T00:00Z"),
        ("since", "9999999d"),
        ("workflow", "7"),
        ("parent", "x"),
        ("queue", "q" * 101),
        ("tenant", "a\0"),
        ("arguments", "to"),
        ("arguments", "=1"),
        ("arguments", "a..b=1"),
        ("arguments", "to='a"),
        ("arguments", " ".join(f"a{n}=1" for n in range(6))),
        ("stat", "DEAD_LETTER"),
    ],
)
def test_read__bad_text__named_by_its_field(field: str, text: str) -> None:
    with pytest.raises(BadSelection) as refused:
        selection.read({field: text}, NOW)
    assert list(refused.value.errors) == [field]


def test_read__since_after_until__refused() -> None:
    with pytest.raises(BadSelection, match="since is not before until"):
        selection.read({"since": "1h", "until": "2h"}, NOW)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("to=a@example.com", [(("to",), "a@example.com")]),
        ("user.id=42 ok=true", [(("user", "id"), 42), (("ok",), True)]),
        ("'name=Ada Lovelace' none=null", [(("name",), "Ada Lovelace"), (("none",), None)]),
        ("q=a=b", [(("q",), "a=b")]),
        ("n=NaN", [(("n",), "NaN")]),
        ("empty=", [(("empty",), "")]),
        ("text='\"42\"'", [(("text",), "42")]),
    ],
)
def test_pairs__words__paths_and_json_values(text: str, pairs: list[Any]) -> None:
    assert selection.pairs(text) == pairs


def test_tags__given__each_once_in_their_order() -> None:
    assert selection.tags(["b", "a", "b"]) == ("b", "a")
    assert selection.tags(()) == ()


@pytest.mark.parametrize(
    "given", ["red", [""], [" a"], ["x" * 65], ["a\0"], [7], [str(n) for n in range(21)]]
)
def test_tags__bad__refused(given: Any) -> None:
    with pytest.raises(ValueError, match="tag"):
        selection.tags(given)
