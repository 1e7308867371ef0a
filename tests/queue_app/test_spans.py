"""What may be asked of the statistics."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from queue_app import spans
from queue_app.spans import BadQuestion, question

NOW = datetime(2026, 11, 25, 12, 34, 56, tzinfo=UTC)


def test_question__nothing_named__is_the_last_hour_by_the_minute() -> None:
    asked = question({}, NOW)
    assert asked.since == datetime(2026, 11, 25, 11, 34, tzinfo=UTC)
    assert asked.until == datetime(2026, 11, 25, 12, 35, tzinfo=UTC)
    assert (asked.step_s, len(spans.starts(asked))) == (60, 61)


@pytest.mark.parametrize(
    ("since", "step_s"),
    [
        ("1h", 60),
        ("2h", 60),
        ("6h", 300),
        ("24h", 900),
        ("2d", 3600),
        ("7d", 21_600),
        ("30d", 86_400),
        ("400d", 86_400),
    ],
)
def test_question__no_step__takes_one_that_makes_a_chart(since: str, step_s: int) -> None:
    assert question({"since": since}, NOW).step_s == step_s


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"since": "yesterday"}, "since"),
        ({"since": "0h"}, "since"),
        ({"since": "9999d"}, "since"),
        ({"step": "2m"}, "step"),
        ({"since": "30d", "step": "1m"}, "step"),
        ({"task": "a"}, "task"),
    ],
)
def test_question__bad_field__names_it(asked: dict[str, str], field: str) -> None:
    with pytest.raises(BadQuestion) as caught:
        question(asked, NOW)
    assert list(caught.value.errors) == [field]
