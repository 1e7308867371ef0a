"""Counters: a number that is added to where it stands."""

from __future__ import annotations

from typing import Any

from .questions import Method, Names, Question


def _count(cache: Names, key: Any, delta: int, version: int | None = None) -> Question:
    return Question(("INCRBY", cache.full_key(key, version), delta), int)


COUNT = Method(_count, lambda *_, **__: 0)
