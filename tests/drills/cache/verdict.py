"""What callers saw, against what was acknowledged to writers. Pure.

Times are seconds of the machine's monotonic clock, which its processes share.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Seen:
    """stale: reads of a version older than one acknowledged `grace_s` before they began. wrong: of another key."""

    reads: int
    hits: int
    stale: int
    wrong: int
    errors: int
    oldest_s: float  # the longest that an overwritten version was still answered
    last_error_s: float | None  # when a call last failed
    problems: tuple[str, ...] = field(default=())


def judge(lines: Iterable[dict[str, Any]], grace_s: float) -> Seen:
    """lines: {"do": "wrote", key, v, at}, {"do": "read", key, v | None, of, at}, {"do": "error", at, what}."""
    written: dict[str, list[tuple[float, int]]] = defaultdict(list)
    reads, errors = [], []
    for line in lines:
        if line["do"] == "wrote":
            written[line["key"]].append((line["at"], line["v"]))
        elif line["do"] == "read":
            reads.append(line)
        else:
            errors.append(line)
    newest = {key: _running_maximum(sorted(pairs)) for key, pairs in written.items()}
    stale = wrong = hits = 0
    oldest_s, problems = 0.0, []
    for read in reads:
        if read["v"] is None:
            continue
        hits += 1
        if read["of"] != read["key"]:
            wrong += 1
            problems.append(f"asked for {read['key']}, got {read['of']}")
        late_s = _overwritten_for_s(newest.get(read["key"], []), read["v"], read["at"])
        oldest_s = max(oldest_s, late_s)
        if late_s > grace_s:
            stale += 1
            problems.append(f"{read['key']} was version {read['v']}, {late_s:.3f} s after it was overwritten")
    last = max((error["at"] for error in errors), default=None)
    return Seen(len(reads), hits, stale, wrong, len(errors), oldest_s, last, tuple(problems[:5]))


def _running_maximum(pairs: list[tuple[float, int]]) -> list[tuple[float, int]]:
    highest, found = -1, []
    for at, version in pairs:
        if version > highest:
            highest = version
            found.append((at, version))
    return found


def _overwritten_for_s(newest: list[tuple[float, int]], version: int, at: float) -> float:
    """How long before `at` a version above this one had been acknowledged; 0.0: it had not."""
    first = bisect.bisect_right(newest, version, key=lambda pair: pair[1])
    if first == len(newest) or newest[first][0] >= at:
        return 0.0
    return at - newest[first][0]
