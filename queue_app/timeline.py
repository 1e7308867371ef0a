"""A job's history as its runs: how long it waited for each, how long that took, on which worker, and what came of it.

steps → (a claim opens a run, the next step of the job closes it) → runs
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from .states import WAITING, State

RUNNING, GIVEN_BACK, LOST = "RUNNING", "GIVEN BACK", "LOST"
_ENDS = frozenset({State.COMPLETED, State.FAILED, State.DEAD_LETTER, State.CANCELLED})
_FAILED = frozenset({State.FAILED.value, State.DEAD_LETTER.value})


class Step(NamedTuple):
    """An entry of the history. worker: whatever the caller knows it by."""

    state: str
    at: datetime
    worker: Any
    detail: Mapping[str, Any]


class Run(NamedTuple):
    """A claim and what came of it. number: 1 for the first run; 0 for a claim that was given back before it ran.

    outcome: a state, or one of RUNNING, GIVEN_BACK, LOST. error: type, and message and traceback where they are known.
    """

    number: int
    due_at: datetime
    claimed_at: datetime
    ended_at: datetime | None
    worker: Any
    outcome: str
    detail: Mapping[str, Any]
    error: Mapping[str, str]

    @property
    def waited_s(self) -> float:
        return max(0.0, (self.claimed_at - self.due_at).total_seconds())

    def ran_s(self, now: datetime) -> float:
        return max(0.0, ((self.ended_at or now) - self.claimed_at).total_seconds())


class Bar(NamedTuple):
    """In per cent of the whole time: where it begins, how long it waits, how long it runs."""

    left: float
    wait: float
    run: float


def runs(
    steps: Iterable[Step], run_after: datetime | None = None, last_error: Mapping[str, str] | None = None
) -> list[Run]:
    """steps: in their order. run_after and last_error: of the job's row, which knows the last of either.

    A run's own message and traceback are in the history when its step has them; else the row's are the last failure's.
    """
    found: list[Run] = []
    due: datetime | None = None
    for step in steps:
        due = step.at if due is None else due
        is_open = bool(found) and found[-1].ended_at is None
        if step.detail.get("action"):
            due = _moved(step, due)
        elif step.state == State.PROCESSING:
            if is_open:  # delivered again: nobody knows since when it was free
                found[-1], due = found[-1]._replace(ended_at=step.at, outcome=LOST), step.at
            found.append(Run(0, min(due, step.at), step.at, None, step.worker, RUNNING, {}, {}))
            continue
        else:
            due = step.at + timedelta(seconds=step.detail.get("retry_in_s") or 0)
        if is_open and _is_end(step):
            found[-1] = _ended(found[-1], step)
    return _told(_numbered(_due(found, run_after)), last_error)


def bars(found: Iterable[Run], began: datetime, now: datetime, *, least: float = 0.6) -> list[Bar]:
    """least: per cent that a run has at least, to be seen beside a wait of hours."""
    found = list(found)
    until = max((run.ended_at or now for run in found), default=now)
    whole_s = max((until - began).total_seconds(), 0.001)
    shown = []
    for run in found:
        wait = 100 * run.waited_s / whole_s
        width = min(100.0, max(least, 100 * run.ran_s(now) / whole_s))
        left = 100 * (run.claimed_at - began).total_seconds() / whole_s - wait
        left = min(max(0.0, left), max(0.0, 100 - wait - width))
        shown.append(Bar(round(left, 2), round(min(wait, 100 - width), 2), round(width, 2)))
    return shown


def _is_end(step: Step) -> bool:
    """Of a run: a step to an end, also one by hand, or back to waiting by the worker or by whoever found it lost."""
    return step.state in _ENDS if step.detail.get("action") else step.state != State.PROCESSING


def _moved(step: Step, due: datetime) -> datetime:
    """When it is due after somebody did something: at once, unless that was only about its place in the line."""
    return step.at if step.state in WAITING and step.detail["action"] != "aged" else due


def _ended(run: Run, step: Step) -> Run:
    outcome = step.state
    if step.state == State.PENDING:
        outcome = LOST if step.detail.get("charged") else GIVEN_BACK
    return run._replace(ended_at=step.at, outcome=outcome, detail=step.detail, error=_error_in(step.detail))


def _error_in(detail: Mapping[str, Any]) -> dict[str, str]:
    """A type alone, or all that is known of an error."""
    error = detail.get("error")
    if isinstance(error, Mapping):
        return {key: str(error[key]) for key in ("type", "message", "traceback") if error.get(key)}
    known = {"type": error, "message": detail.get("message"), "traceback": detail.get("traceback")}
    return {key: str(value) for key, value in known.items() if value}


def _due(found: list[Run], run_after: datetime | None) -> list[Run]:
    """The last one may have been delayed or put off; of those before, their steps say it."""
    if found and run_after and found[-1].due_at < run_after <= found[-1].claimed_at:
        return [*found[:-1], found[-1]._replace(due_at=run_after)]
    return found


def _numbered(found: list[Run]) -> list[Run]:
    number, numbered = 0, []
    for run in found:
        number += run.outcome != GIVEN_BACK
        numbered.append(run if run.outcome == GIVEN_BACK else run._replace(number=number))
    return numbered


def _told(found: list[Run], last_error: Mapping[str, str] | None) -> list[Run]:
    if not last_error:
        return found
    for place in range(len(found) - 1, -1, -1):
        run = found[place]
        if run.outcome in _FAILED and run.error.get("type", last_error.get("type")) == last_error.get("type"):
            known = {key: value for key, value in last_error.items() if value}
            return [*found[:place], run._replace(error={**known, **run.error}), *found[place + 1 :]]
        if run.outcome in _FAILED:
            break
    return found
