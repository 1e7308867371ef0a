"""Whether all that is stored can be used by a process with these settings: for readiness, the admin and the commands.

Nothing is resolved or fetched for it, so it says the same while targets and issuers are away.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from django.db import Error as DatabaseProblem

from foundation.health import Health

from . import holder, models, trial
from .conf import conf
from .outages import Outage


@dataclass(frozen=True, slots=True)
class Found:
    """refused: why nothing of the configuration can be used, "" where it can."""

    outages: tuple[Outage, ...] = ()
    refused: str = ""

    @property
    def is_sound(self) -> bool:
        return not self.outages and not self.refused

    def __str__(self) -> str:
        if self.refused:
            return f"nothing can be used: {self.refused}"
        told = "; ".join(f"{one.kind} {one.name} ({one.code})" for one in self.outages[:3])
        more = f" and {len(self.outages) - 3} more" if len(self.outages) > 3 else ""
        return f"out of service: {told}{more}" if told else "all of it can be used"


_last: tuple[Any, float, Found] = (None, 0.0, Found())


def look() -> Found:
    """Compiled once a version; what is wrong once in RESOLVE_S, as an edge would. Raises django.db.Error."""
    global _last
    of = (*_version(), conf())
    known, at, found = _last
    now = time.monotonic()
    if known != of or (not found.is_sound and now - at >= conf().RESOLVE_S):
        found = _looked()
        _last = of, now, found
    return found


def check() -> Health:
    """It serves, and somebody should look."""
    started = time.monotonic()
    try:
        found = look()
    except DatabaseProblem as error:  # the database's own check says so
        return _health(started, f"it cannot be read: {type(error).__name__}", is_sound=True)
    return _health(started, str(found), is_sound=found.is_sound)


def _health(started: float, told: str, *, is_sound: bool) -> Health:
    took_ms = round((time.monotonic() - started) * 1000, 2)
    return Health("gateway", True, told, took_ms, degraded=not is_sound)


def _version() -> tuple[Any, ...]:
    row = models.Configuration.objects.filter(pk=1).values_list("version", "changed_at").first()
    return row or (0, None)


def _looked() -> Found:
    try:
        return Found(trial.compiled(holder.entries_of(holder.read())).outages)
    except (ValueError, KeyError, TypeError) as error:
        return Found(refused=f"{type(error).__name__}: {error}")
