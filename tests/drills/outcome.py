"""What a drill reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """lost, duplicated and failed count ids; recovered_s: the longest time from a blow to the next finished work."""

    drill: str
    lost: int
    duplicated: int
    failed: int
    recovered_s: float
    passed: bool
    note: str = ""  # what was done, for the reader of the table


class Broken(Exception):
    """The drill could not be held: nothing can be said about what it was to show."""
