"""How all databases stand, asked side by side: one that is down costs the others nothing."""

from __future__ import annotations

from django.db import connections

from . import asking, status
from .status import Status


def every() -> list[Status]:
    # Last those that are asked in this thread, while the others are on their way.
    aliases = sorted(connections, key=lambda alias: connections[alias].vendor == "sqlite")
    asked = {alias: _asked(alias) for alias in aliases}
    return [_told(alias, asked[alias]) for alias in connections]


def of(alias: str) -> Status:
    return _told(alias, _asked(alias))


def _asked(alias: str) -> asking.Question[Status]:
    return asking.start(alias, "status", lambda: status.of(alias))


def _told(alias: str, question: asking.Question[Status]) -> Status:
    answer = question.answer()
    return answer.value or status.down(alias, answer.error)
