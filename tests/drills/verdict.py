"""Counting by id what became of the jobs: pure, so that the checker itself is tested."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fate:
    """One job at the end. completions: how often it became COMPLETED; crashes: runs that ended with their worker."""

    id: str
    state: str
    completions: int
    crashes: int


@dataclass(frozen=True, slots=True)
class Verdict:
    lost: int
    duplicated: int
    failed: int


def judge(enqueued: Iterable[str], fates: Iterable[Fate], effects: Iterable[tuple[str, int]]) -> Verdict:
    """enqueued: ids that were accepted. effects: (id, fence) of every run that got to its end.

    lost: accepted, and not run to its end or never COMPLETED. failed: ended in FAILED or DEAD_LETTER.
    duplicated: COMPLETED more than once, run twice under one claim, or run more often than its crashes explain: a
    worker that dies between the work and its record has to be repeated, nothing else has.
    """
    by_id = {fate.id: fate for fate in fates}
    runs = Counter(effects)
    ended = Counter(job for job, _ in runs.elements())
    twice_claimed = {job for (job, _), count in runs.items() if count > 1}
    failed = {fate.id for fate in by_id.values() if fate.state in ("FAILED", "DEAD_LETTER")}
    lost, duplicated = set(), set(twice_claimed)
    for job in enqueued:
        fate = by_id.get(job)
        if fate is None or (job not in failed and (fate.state != "COMPLETED" or not ended[job])):
            lost.add(job)
        elif fate.completions > 1 or ended[job] > 1 + fate.crashes:
            duplicated.add(job)
    return Verdict(len(lost), len(duplicated), len(failed))
