"""What an app's `doctor` finds: a line each, with what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from .commands import DEGRADED, FAILED, OK


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """about: what was looked at. hint: what to do; empty when it is well."""

    level: Level
    about: str
    told: str
    hint: str = ""


def exit_code(found: Iterable[Finding]) -> int:
    levels = {finding.level for finding in found}
    return FAILED if Level.ERROR in levels else DEGRADED if Level.WARNING in levels else OK
