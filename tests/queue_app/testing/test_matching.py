from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY

import pytest

from queue_app.testing.matching import at_time, differences

FOUND = {
    "to": "a@example.com",
    "n": 1,
    "is_new": True,
    "lines": [{"sku": "x", "pieces": 2}],
    "card": {"pin": 1},
}


@pytest.mark.parametrize(
    "expected",
    [
        {},
        ANY,
        dict,
        {"to": "a@example.com"},
        {"card": {}},
        {"card": {"pin": int}},
        {"lines": [{"sku": "x"}]},
        {"lines": ({"pieces": lambda pieces: pieces > 1},)},
        {"to": str.islower, "n": ANY},
        {"n": 1.0, "is_new": bool},
        lambda payload: len(payload) == 5,
    ],
)
def test_differences__fits__none(expected: Any) -> None:
    assert differences(expected, FOUND) == []


@pytest.mark.parametrize(
    ("expected", "told"),
    [
        ({"to": "b@example.com"}, "payload.to: expected 'b@example.com', found 'a@example.com'"),
        ({"card": {"pin": 2}}, "payload.card.pin: expected 2, found 1"),
        ({"card": {"owner": "x"}}, "payload.card.owner: expected 'x', found no such key"),
        ({"lines": []}, "payload.lines: expected a list of 0, found a list of 1"),
        ({"lines": [{"pieces": 3}]}, "payload.lines[0].pieces: expected 3, found 2"),
        ({"to": {}}, "payload.to: expected an object, found 'a@example.com'"),
        ({"n": True}, "payload.n: expected True, found 1"),
        ({"is_new": int}, "payload.is_new: expected a int, found True"),
        (
            {"n": str.islower},
            "payload.n: expected what str.islower accepts, found 1, for which it raised TypeError",
        ),
        ({"to": str.isupper}, "payload.to: expected what str.isupper accepts, found 'a@example.com'"),
    ],
)
def test_differences__does_not_fit__path_and_both_sides(expected: Any, told: str) -> None:
    assert [str(one) for one in differences(expected, FOUND)] == [told]


def test_at_time__within_and_past_the_tolerance() -> None:
    at = datetime(2026, 11, 26, 10, tzinfo=UTC)
    assert at_time("run_at", at, at + timedelta(seconds=2), 2.0) == []
    assert at_time("run_at", None, None, 2.0) == []
    (late,) = at_time("run_at", at, at + timedelta(seconds=2.5), 2.0)
    assert str(late) == (
        "run_at: expected 2026-11-26 10:00:00.000+0000 (±2 s), found 2026-11-26 10:00:02.500+0000"
    )
    assert str(at_time("run_at", None, at, 2.0)[0]).startswith("run_at: expected at once, found 2026")
