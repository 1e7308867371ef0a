"""Figures as people read them at a glance: 12.3k, 340 ms, 1.2 GiB, 1.2 %, 3 min ago, and names of the steps of a chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

NONE = "–"
_DAY_S = 86_400
_SIZES = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_UNITS = ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k"))
# Seconds from which a unit is used, its length in seconds, its name. 90 s tell more than 1.5 min.
_TIMES = ((172_800, 86_400, "d"), (7_200, 3_600, "h"), (120, 60, "min"), (1, 1, "s"))


@dataclass(frozen=True, slots=True)
class Card:
    """One figure on a page. tone: "", "good" or "bad"; link: the list behind it, "" for none."""

    label: str
    value: str
    note: str = ""
    tone: str = ""
    link: str = ""


def count(number: float) -> str:
    """999, 1.2k, 12.3k, 123k, 1.2M; below ten with one decimal where it is no whole number."""
    for size, unit in _UNITS:
        if number >= size * 0.9995:  # 999,600 would be "1000k"
            return f"{_rounded(number / size)}{unit}"
    return f"{number:.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"


def duration(seconds: float | None) -> str:
    """0.4 ms, 340 ms, 2.1 s, 12 min, 3.5 h, 2.1 d; a dash for none."""
    if seconds is None:
        return NONE
    if seconds <= 0:
        return "0 s"
    if seconds < 0.00095:
        return f"{max(0.1, round(seconds * 1000, 1)):g} ms"
    if seconds < 0.9995:
        return f"{round(seconds * 1000)} ms"
    least_s, unit_s, unit = next(found for found in _TIMES if seconds >= found[0] * 0.9995)
    return f"{_rounded(seconds / unit_s)} {unit}"


def size(size_bytes: float | None) -> str:
    """340 B, 12.3 KiB, 1.2 GiB; a dash for none."""
    if size_bytes is None:
        return NONE
    for unit, bytes_of in _SIZES:
        if size_bytes >= bytes_of:
            return f"{size_bytes / bytes_of:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def share(part: float | None) -> str:
    """Of 1, in per cent; a dash for none."""
    if part is None:
        return NONE
    if 0 < part < 0.001:
        return "<0.1 %"
    percent = 100 * part
    return f"{percent:.1f} %" if 0 < percent < 9.95 else f"{percent:.0f} %"


def ago(seconds: float) -> str:
    """ "now", "3 s ago", "12 min ago"; by whole units, as nobody reads tenths of them here."""
    if seconds < 1:
        return "now"
    for least_s, unit_s, unit in _TIMES:
        if seconds >= least_s:
            return f"{seconds // unit_s:.0f} {unit} ago"
    raise AssertionError("unreachable: a second has a unit")


def steps(moments: Sequence[datetime], step_s: int) -> list[str]:
    """Names of a chart's steps: 14:05 within a day, Nov 24 18:00 in longer times, Nov 24 of whole days."""
    if step_s >= _DAY_S:
        return [f"{at:%b} {at.day}" for at in moments]
    if len(moments) * step_s <= _DAY_S + step_s:
        return [f"{at:%H:%M}" for at in moments]
    return [f"{at:%b} {at.day} {at:%H:%M}" for at in moments]


def _rounded(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0") if value < 99.95 else f"{value:.0f}"
