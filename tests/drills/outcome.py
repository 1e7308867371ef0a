"""What a drill reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """lost, duplicated and failed count ids; recovered_s: from the end of the fault until the work it held up was done.

    The end of a fault that nobody mends (kill -9) is its beginning. None: nothing was done after it.
    """

    drill: str
    lost: int
    duplicated: int
    failed: int
    recovered_s: float | None
    passed: bool
    note: str = ""  # what was done, for the reader of the table
    skipped: str = ""  # the reason why the drill was not held


class Broken(Exception):
    """The drill could not be held: nothing can be said about what it was to show."""
