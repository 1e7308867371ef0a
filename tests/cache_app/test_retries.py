from __future__ import annotations

import pytest

from cache_app import retries


def test_hold_off__until_then__and_not_after_it() -> None:
    retries.hold_off("k", 10.0)
    assert retries.is_held_off("k", 9.9) is True
    assert retries.is_held_off("k", 10.0) is False
    retries.hold_off("k", 20.0)
    retries.forget("k")
    retries.forget("k")
    assert retries.is_held_off("k", 15.0) is False


def test_hold_off__no_room__the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "ROOM", 2)
    monkeypatch.setattr(retries, "_until", type(retries._until)())
    for key in ("a", "b", "a", "c"):
        retries.hold_off(key, 10.0)
    assert [retries.is_held_off(key, 0.0) for key in "abc"] == [True, False, True]
