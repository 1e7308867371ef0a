"""What is asked of the statistics: since when, and in steps of what length."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

STEPS_S = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "6h": 21_600, "1d": 86_400}
MOST_POINTS = 1500
LONGEST_S = 400 * 86_400
# The longest span of each step, when none is named: what makes a chart, and has a level that it is read from.
_DEFAULT_STEPS = ((7200, 60), (36_000, 300), (108_000, 900), (432_000, 3600), (1_209_600, 21_600))
_SPAN = re.compile(r"([1-9]\d{0,5})([mhd])", re.ASCII)
_UNITS_S = {"m": 60, "h": 3600, "d": 86_400}
FILTERS = ("queue", "name", "tenant")
_KNOWN = (*FILTERS, "since", "step")


class BadQuestion(ValueError):
    """errors: field → what is wrong with it."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {told}" for field, told in errors.items()))
        self.errors = dict(errors)


class Question(NamedTuple):
    """since and until are whole steps of `step_s` seconds since 1970. An empty filter takes all."""

    since: datetime
    until: datetime
    step_s: int
    queue: str = ""
    name: str = ""
    tenant: str = ""


def question(asked: Mapping[str, str], now: datetime) -> Question:
    """asked: texts; `since` a span before now (30m, 1h, 30d), `step` one of STEPS_S. Raises BadQuestion."""
    errors = {field: f"is not one of {', '.join(_KNOWN)}" for field in asked if field not in _KNOWN}
    # PostgreSQL has no text with one in it.
    errors |= {field: "holds a NUL byte" for field in FILTERS if "\x00" in (asked.get(field) or "")}
    span_s = _span_s(asked.get("since") or "1h", errors)
    step_s = _step_s(asked.get("step") or "", span_s, errors)
    if not errors and span_s / step_s > MOST_POINTS:
        errors["step"] = f"makes more than {MOST_POINTS} points; take a longer one"
    if errors:
        raise BadQuestion(errors)
    until = now.timestamp() // step_s * step_s + step_s
    since = (now.timestamp() - span_s) // step_s * step_s
    queue, name, tenant = (asked.get(field) or "" for field in FILTERS)
    zone = now.tzinfo
    return Question(
        datetime.fromtimestamp(since, zone), datetime.fromtimestamp(until, zone), step_s, queue, name, tenant
    )


def starts(asked: Question) -> list[datetime]:
    """Where each step begins."""
    count = int((asked.until - asked.since).total_seconds() // asked.step_s)
    return [asked.since + timedelta(seconds=number * asked.step_s) for number in range(count)]


def _span_s(text: str, errors: dict[str, str]) -> int:
    found = _SPAN.fullmatch(text)
    span_s = int(found[1]) * _UNITS_S[found[2]] if found else 0
    if not 0 < span_s <= LONGEST_S:
        errors["since"] = f"{text[:40]!r} is not a span like 30m, 1h or 30d, 400d at most"
        return 3600
    return span_s


def _step_s(text: str, span_s: int, errors: dict[str, str]) -> int:
    if not text:
        return next((step_s for longest_s, step_s in _DEFAULT_STEPS if span_s <= longest_s), 86_400)
    if text not in STEPS_S:
        errors["step"] = f"{text[:40]!r} is not one of {', '.join(STEPS_S)}"
        return 3600
    return STEPS_S[text]
