"""One thing that was looked at, how it stands, and what to do. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OK, WARN, BAD = "ok", "warn", "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """level: "ok", "warn" or "bad". value: the number behind the text, for whoever draws it."""

    name: str
    level: str
    text: str
    hint: str = ""
    value: Any = None


def above(
    name: str, value: float, text: str, hint: str, *, warn: float, bad: float = float("inf")
) -> Finding:
    """warn, bad: from which value on. The hint stands where something is to be done."""
    level = BAD if value >= bad else WARN if value >= warn else OK
    return Finding(name, level, text, hint if level != OK else "", value)


def below(name: str, value: float, text: str, hint: str, *, warn: float) -> Finding:
    level = WARN if value < warn else OK
    return Finding(name, level, text, hint if level != OK else "", value)
