from __future__ import annotations

import pytest

from queue_app.payload_edit import changes, restored
from queue_app.payloads import BadPayload
from queue_app.secret_fields import MASK

PLAIN = {"to": "a", "cards": [{"n": "1", "name": "x"}, {"n": "2", "name": "y"}]}
SHOWN = {"to": "a", "cards": [{"n": MASK, "name": "x"}, {"n": MASK, "name": "y"}]}


def test_restored__dots_left_as_they_were__secrets_come_back():
    assert restored({**SHOWN, "to": "b"}, SHOWN, PLAIN) == {**PLAIN, "to": "b"}


@pytest.mark.parametrize(
    "edited",
    [
        {"to": MASK},
        {"new": MASK},
        {"cards": [SHOWN["cards"][1]]},  # moved up: it would get the other card's number
        {"cards": [{"n": MASK, "name": "z"}]},
        {"to": [MASK]},
    ],
)
def test_restored__dots_elsewhere__refused(edited):
    with pytest.raises(BadPayload):
        restored(edited, SHOWN, PLAIN)


def test_changes__added_removed_retyped_and_secret__told_without_the_secret():
    before = {"a": 1, "b": {"c": 1}, "s": "old", "one": 1}
    after = {"b": {"c": 2}, "s": "new", "d": None, "one": True}
    found = changes(before, after, {**before, "s": MASK}, {**after, "s": MASK})
    assert found == {
        "a": {"before": 1},
        "b.c": {"before": 1, "after": 2},
        "s": {"before": MASK, "after": MASK},
        "d": {"after": None},
        "one": {"before": 1, "after": True},
    }
    assert changes(before, before, before, before) == {}
