"""How all databases stand, asked side by side: one that is down costs the others nothing."""

from __future__ import annotations

from django.db import connections

from foundation.health import Health

from . import asking, checkups, health, status
from .checkups import Checkup
from .status import Status

_CHECKUP_S = 8.0  # it asks a dozen questions


def every() -> list[Status]:
    # Last those that are asked in this thread, while the others are on their way.
    aliases = sorted(connections, key=lambda alias: connections[alias].vendor == "sqlite")
    asked = {alias: _asked(alias) for alias in aliases}
    return [_told(alias, asked[alias]) for alias in connections]


def of(alias: str) -> Status:
    return _told(alias, _asked(alias))


def probe(alias: str = "default") -> Health:
    """health.check, in a bounded time: a server that hangs leaves a connection of the pool without an answer."""
    answer = asking.of(alias, "probe", lambda: health.check(alias))
    return answer.value or Health("database", False, answer.error, asking.PATIENCE_S * 1000)


def checkup(alias: str) -> asking.Answer[Checkup]:
    return asking.once_up(alias, "checkup", lambda: checkups.of(alias), _CHECKUP_S)


def _asked(alias: str) -> asking.Question[Status]:
    return asking.start(alias, "status", lambda: status.of(alias))


def _told(alias: str, question: asking.Question[Status]) -> Status:
    answer = question.answer()
    return answer.value or status.down(alias, answer.error)
