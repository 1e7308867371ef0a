"""Counting by id what became of the jobs: pure, so that the checker itself is tested."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from queue_app.states import OVER, TRANSITIONS, State


@dataclass(frozen=True, slots=True)
class Fate:
    """One job at the end. crashes: charged ones; steps: the states its events name, in order; none when not recorded.

    is_orphan: it is PROCESSING and the lease of its owner has ended.
    """

    id: str
    state: str
    crashes: int = 0
    steps: tuple[str, ...] | None = None
    is_orphan: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """lost, duplicated and failed count ids; reruns: work that was done again, as it may be outside of a transaction."""

    lost: int
    duplicated: int
    failed: int
    reruns: int = 0
    problems: tuple[str, ...] = ()


def judge(
    accepted: Iterable[str],
    fates: Iterable[Fate],
    effects: Iterable[str],
    lines: Iterable[tuple[str, int]],
    *,
    poison: Collection[str] = (),
    uncharged: Collection[str] = (),
) -> Verdict:
    """accepted: ids whose enqueue returned. effects: the id of every row written inside `job.atomic()`. lines: (id, fence)
    of every line written outside of it. poison: must end in DEAD_LETTER. uncharged: must not have cost a crash.

    lost: not over, or COMPLETED without its work. failed: DEAD_LETTER without being poison.
    duplicated: two effects of one id, or two runs under one claim.
    """
    by_id = {fate.id: fate for fate in fates}
    rows, runs = Counter(effects), Counter(lines)
    done = Counter(job for job, _ in runs.elements()) + rows
    lost = {job for job in accepted if _is_lost(by_id.get(job), done[job])}
    twice = {job for job, count in rows.items() if count > 1}
    twice |= {job for (job, fence), count in runs.items() if count > 1 and fence}
    dead = {fate.id for fate in by_id.values() if fate.state == State.DEAD_LETTER}
    problems = {
        "in PROCESSING with a dead owner": [fate.id for fate in by_id.values() if fate.is_orphan],
        "with a broken event chain": [fate.id for fate in by_id.values() if not chain_holds(fate)],
        "with an effect and not COMPLETED": [
            job for job in rows if job in by_id and by_id[job].state != State.COMPLETED
        ],
        "poisoned and not DEAD_LETTER": [job for job in poison if job not in dead],
        "innocent and charged with a crash": [
            job for job in uncharged if job in by_id and by_id[job].crashes
        ],
    }
    reruns = sum(count - 1 for count in done.values())
    return Verdict(len(lost), len(twice), len(dead - set(poison)), reruns, _told(problems))


def chain_holds(fate: Fate) -> bool:
    """From PENDING to where the row stands, by allowed steps only."""
    steps = fate.steps
    if steps is None:
        return True
    if not steps or steps[0] != State.PENDING or steps[-1] != fate.state:
        return False
    return all(after in TRANSITIONS[State(before)] for before, after in pairwise(steps))


def recovery_s(
    blow: float, finished: Iterable[tuple[str, float]], held: Collection[str] | None = None
) -> float:
    """Seconds from the blow until the work of all in `held` was done after it; None: until any work was.

    Those that had done their work before it count only if they did it again.
    """
    after = sorted((at, job) for job, at in finished if at > blow)
    if held is None:
        return after[0][0] - blow if after else float("inf")
    first = {job: at for at, job in reversed(after)}
    return max((first[job] - blow for job in held if job in first), default=0.0)


def _is_lost(fate: Fate | None, done: int) -> bool:
    if fate is None or fate.state not in OVER:
        return True
    return fate.state == State.COMPLETED and not done


def _told(problems: dict[str, list[str]]) -> tuple[str, ...]:
    return tuple(f"{len(ids)} {what}: {_some(ids)}" for what, ids in problems.items() if ids)


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:3]) + (" …" if len(ids) > 3 else "")
