"""Unique keys: which jobs are the same one, for how long, and what becomes of an enqueue that comes second.

    insert where the key is free → made   ·   taken → the holder: the same job | moved on (debounce) | past its window

The unique column of the job's row decides, not a look before the insert: of two callers at once one gets the other's job.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from .failures import is_clean

LONGEST_KEY = 200
_LONGEST_S = 10 * 365 * 86_400

Key = str | Callable[[Any], str]


class BadUnique(ValueError):
    """No key, or a window that is none."""


@dataclass(frozen=True, slots=True)
class Unique:
    """Of all enqueues with this key, over all tasks and queues, only one makes a job:

    - alone: while a job with the key is not over (a dead letter is over, and its replay takes no key);
    - for_s: within so many seconds after the first, over or not;
    - debounce_s: the job waits for so many seconds, and each further enqueue makes it wait anew and gives it its payload.
      One that runs already is left alone, and the next enqueue makes a new job.

    key: up to 200 characters, or a function of the payload that returns them.
    """

    key: Key
    for_s: float | None = None
    debounce_s: float | None = None

    def keys(self, payloads: Sequence[Any]) -> list[str]:
        """The key of each payload. Raises BadUnique."""
        return [_key(self.key(payload) if callable(self.key) else self.key) for payload in payloads]

    def until(self, now: datetime) -> datetime | None:
        return None if self.for_s is None else now + timedelta(seconds=self.for_s)


def terms(given: Unique | Key | None) -> Unique | None:
    """As `enqueue` is given them. Raises BadUnique."""
    if given is None:
        return None
    unique = given if isinstance(given, Unique) else Unique(given)
    if unique.for_s is not None and unique.debounce_s is not None:
        raise BadUnique("unique: give for_s or debounce_s, not both")
    for name, value in (("for_s", unique.for_s), ("debounce_s", unique.debounce_s)):
        if value is not None and not (math.isfinite(value) and 0 < value <= _LONGEST_S):
            raise BadUnique(
                f"unique: {name} = {value!r} is not a number of seconds above 0 and up to ten years"
            )
    return unique


def _key(key: object) -> str:
    # Spaces at the end: MySQL compares without them.
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY or key != key.strip():
        raise BadUnique(f"unique: a key is a text of 1 to {LONGEST_KEY} characters with no space at its ends")
    if not is_clean(key):
        raise BadUnique("unique: a key holds no NUL character and no half of a surrogate pair")
    return key
