"""Counting by id what became of the requests: pure, so that the checker itself is tested."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE"))  # RFC 9110 section 9.2.2


@dataclass(frozen=True, slots=True)
class Fate:
    """One request as its client saw it. at, until: monotonic seconds, of its first byte and of the last thing that came.

    status: 0 when no head came. code: X-Brain-Error. fault: how the connection failed the request, empty: it did not.
    is_whole: the answer came to its end. told: the id that it names. edge: the port that was asked; port: the client's own.
    target: who served it. mark: of the configuration that it was served by.
    """

    id: str
    method: str
    status: int = 200
    code: str = ""
    fault: str = ""
    is_whole: bool = True
    told: str = ""
    edge: int = 0
    port: int = 0
    target: str = ""
    mark: str = ""
    at: float = 0.0
    until: float = 0.0

    @property
    def is_good(self) -> bool:
        return self.status == 200 and self.is_whole and not self.fault and self.told == self.id

    @property
    def has_begun(self) -> bool:
        """A good response's head came, so that nobody could have started again."""
        return self.status == 200 and not self.is_whole

    @property
    def is_idempotent(self) -> bool:
        return self.method in IDEMPOTENT

    def __str__(self) -> str:
        parts = (str(self.status), self.code, self.fault, "" if self.is_whole else "cut")
        return f"{self.method} {' '.join(part for part in parts if part)}"


@dataclass(frozen=True, slots=True)
class Excuse:
    """What a fault may cost, in words, and which requests it speaks of."""

    told: str
    holds: Callable[[Fate], bool]


@dataclass(frozen=True, slots=True)
class Verdict:
    """lost: not served, and no excuse. failed: not served, with one; excused: how many by each. duplicated: not idempotent,
    and a target saw it more than once."""

    total: int
    lost: int
    duplicated: int
    failed: int
    excused: Mapping[str, int]
    problems: tuple[str, ...] = ()


def judge(fates: Iterable[Fate], runs: Mapping[str, int], excuses: Sequence[Excuse] = ()) -> Verdict:
    """runs: how often targets have read each id whole."""
    told = list(fates)
    bad = [fate for fate in told if not fate.is_good]
    why = {fate.id: next((one.told for one in excuses if one.holds(fate)), "") for fate in bad}
    lost = [fate for fate in bad if not why[fate.id]]
    twice = [fate for fate in told if not fate.is_idempotent and runs.get(fate.id, 0) > 1]
    crossed = [fate for fate in told if fate.told and fate.told != fate.id]
    unseen = [fate for fate in told if fate.is_good and not runs.get(fate.id)]
    problems = {
        "not served": lost,
        "not idempotent and run twice": twice,
        "answered with another's answer": crossed,
        "answered without a target": unseen,
    }
    excused = Counter(reason for reason in why.values() if reason)
    return Verdict(len(told), len(lost), len(twice), len(bad) - len(lost), excused, _told(problems))


def over_admitted(admitted: int, allowed: float) -> int:
    """How many more were let through than a limit allows. allowed: tokens that the buckets held and got."""
    return max(0, admitted - math.floor(allowed))


def percentile(values: Collection[float], share: float) -> float:
    """The value that so many percent do not exceed (nearest rank); 0 without values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share / 100 * len(ordered)) - 1)] if ordered else 0.0


def took_effect_s(fates: Iterable[Fate], mark: str, at: float) -> tuple[float, float]:
    """Seconds from `at` until the first answer of the configuration `mark`, and until the last request was *sent* that
    still got an older one. Infinite without any."""
    later = [fate for fate in fates if fate.mark and fate.until >= at]
    first = min((fate.until - at for fate in later if fate.mark == mark), default=math.inf)
    if math.isinf(first):
        return first, first
    old = [fate.at - at for fate in later if _older(fate.mark, mark)]
    return first, max([first, *old])


def _older(mark: str, than: str) -> bool:
    return int(mark) < int(than)


def _told(problems: Mapping[str, Sequence[Fate]]) -> tuple[str, ...]:
    return tuple(f"{len(fates)} {what}: {_some(fates)}" for what, fates in problems.items() if fates)


def _some(fates: Sequence[Fate]) -> str:
    kinds = Counter(str(fate) for fate in fates).most_common(4)
    return ", ".join(f"{count} × {kind}" for kind, count in kinds) + f" (such as {fates[0].id})"
