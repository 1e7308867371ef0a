"""What was promised, against what happened and what the tables hold. Pure.

Times are seconds of the machine's monotonic clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """error: "" when it was answered as it had to be."""

    name: str
    began: float
    ended: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Outage:
    """gone: the server was told to stop; back: it answered somebody again."""

    gone: float
    back: float


@dataclass(frozen=True, slots=True)
class Restarted:
    """down: failed and began before the server was back. first: failed after that, before anyone could know of the first
    failure. later: began after a failed request had ended, and failed too; nothing may be here."""

    served: int
    down: int
    first: int
    later: tuple[Request, ...]
    strays: tuple[Request, ...]  # failed and touched no outage at all
    recovered_s: float  # longest, from an outage's end until a request that began after it was served
    slowest_s: float  # of the requests that began after an outage's end


def restarted(requests: Iterable[Request], outages: Sequence[Outage]) -> Restarted:
    """Requests of a whole drill with several outages, each judged in the stretch up to the next one."""
    served = down = first = 0
    later: list[Request] = []
    strays: list[Request] = []
    recovered_s = slowest_s = 0.0
    everyone = sorted(requests, key=lambda request: request.began)
    if outages:
        before = [one for one in everyone if one.began < outages[0].gone]
        strays += [one for one in before if one.error and one.ended < outages[0].gone]
        down += sum(1 for one in before if one.error and one.ended >= outages[0].gone)
        served += sum(1 for one in before if not one.error)
    for outage, following in zip(outages, [*outages[1:], None], strict=True):
        end = following.gone if following else float("inf")
        stretch = [one for one in everyone if outage.gone <= one.began < end]
        served += sum(1 for one in stretch if not one.error)
        down += sum(1 for one in stretch if one.error and one.began < outage.back)
        after = [one for one in stretch if one.began >= outage.back]
        # One that was under way when the next outage began is that outage's.
        broken = [one for one in after if one.error and one.ended < end]
        down += sum(1 for one in after if one.error and one.ended >= end)
        known = min((one.ended for one in broken), default=float("inf"))
        first += sum(1 for one in broken if one.began <= known)
        later += [one for one in broken if one.began > known]
        good = [one.ended - outage.back for one in after if not one.error]
        recovered_s = max(recovered_s, min(good, default=float("inf")))
        slowest_s = max(
            slowest_s, max((one.ended - one.began for one in after if one.ended < end), default=0.0)
        )
    return Restarted(served, down, first, tuple(later), tuple(strays), recovered_s, slowest_s)


@dataclass(frozen=True, slots=True)
class Held:
    """Acknowledged names against the rows that are there. extra: rows that nobody knows to be written."""

    lost: tuple[str, ...]
    extra: tuple[str, ...]


def held(acknowledged: Iterable[str], doubtful: Iterable[str], rows: Collection[str]) -> Held:
    """doubtful: an error was answered, or nothing: the row may be there or not (a commit whose answer was lost)."""
    promised = set(acknowledged)
    there = set(rows)
    return Held(tuple(sorted(promised - there)), tuple(sorted(there - promised - set(doubtful))))


@dataclass(frozen=True, slots=True)
class Transfer:
    id: str
    source: int
    target: int
    cents: int


@dataclass(frozen=True, slots=True)
class Books:
    """missing: committed and no row; unknown: a row that nobody has committed; wrong: accounts whose balance is not what
    the ledger makes of it; gap_cents: of the sum of all."""

    missing: int
    unknown: int
    wrong: tuple[str, ...]
    gap_cents: int


def books(
    opening: Mapping[int, int],
    ledger: Iterable[Transfer],
    closing: Mapping[int, int],
    committed: Iterable[str],
) -> Books:
    balance = dict(opening)
    rows = list(ledger)
    for row in rows:
        balance[row.source] -= row.cents
        balance[row.target] += row.cents
    wrong = tuple(
        f"account {key}: {closing.get(key)}, by the ledger {cents}"
        for key, cents in sorted(balance.items())
        if closing.get(key) != cents
    )
    told, written = set(committed), {row.id for row in rows}
    gap = sum(closing.values()) - sum(opening.values())
    return Books(len(told - written), len(written - told), wrong, gap)


@dataclass(frozen=True, slots=True)
class Isolated:
    """lost: committed and not both rows; leaked: rolled back and a row there; torn: cancelled and one of two rows."""

    lost: tuple[str, ...]
    leaked: tuple[str, ...]
    torn: tuple[str, ...]


def isolated(fates: Mapping[str, str], rows: Iterable[str], marks: int = 2) -> Isolated:
    """fates: "committed", "rolled back" or "cancelled" by transaction. rows: the transaction of each row that is there."""
    found = Counter(rows)
    lost = tuple(key for key, fate in fates.items() if fate == "committed" and found[key] != marks)
    leaked = tuple(key for key, fate in fates.items() if fate == "rolled back" and found[key])
    torn = tuple(key for key, fate in fates.items() if fate == "cancelled" and found[key] not in (0, marks))
    return Isolated(lost, leaked, torn)


def late(waits_s: Iterable[float], timeout_s: float, under_s: float = 0.1, over_s: float = 1.0) -> int:
    """How many of those that were to wait for timeout_s gave up too early or too late."""
    return sum(not timeout_s - under_s <= wait_s <= timeout_s + over_s for wait_s in waits_s)


def uneven(steps: Iterable[str], expected: Iterable[str]) -> tuple[str, ...]:
    """The steps that were not done exactly once, with how often they were."""
    done, wanted = Counter(steps), list(expected)
    odd = [name for name in wanted if done[name] != 1] + [name for name in done if name not in wanted]
    return tuple(f"{name} × {done[name]}" for name in odd)
