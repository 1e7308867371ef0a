"""The states of a job, the one table of allowed transitions, and priorities. The ledger enforces the table in its SQL."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import IntEnum, StrEnum

LOWEST, HIGHEST = 0, 9
# `run_after` of a job that waits for other jobs of its workflow. Its time does not come, so neither the claim nor any look
# of the reconciler has to know of workflows.
NEVER = datetime(9999, 1, 1, tzinfo=UTC)


class State(StrEnum):
    PENDING = "PENDING"  # waiting to be run
    PROCESSING = "PROCESSING"  # claimed by a worker
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"  # will be tried again at run_after
    DEAD_LETTER = "DEAD_LETTER"  # failed for good; somebody replays or discards it
    CANCELLED = "CANCELLED"  # discarded, cancelled or expired


class Turn(IntEnum):
    """Where a job stands with the governor of its queue. A job of a queue without limits needs no turn."""

    NONE = 0
    LATER = 1  # waits, and not for its turn yet: its time has not come, or it has come back
    WAITS = 2
    HAS = 3  # counts against the limits from here until its run has ended


class Asked(StrEnum):
    """What somebody wants of a worker. It hears of it at its next heartbeat."""

    NOTHING = ""
    QUIET = "quiet"  # end what it holds and take nothing new
    STOP = "stop"
    RECYCLE = "recycle"  # stop, and start the same program again


class Bulk(StrEnum):
    """What can be done to many jobs at once."""

    REPLAY = "replay"  # dead letters
    DISCARD = "discard"  # dead letters
    CANCEL = "cancel"  # what waits or runs
    RUN = "run"  # what waits for its time or its retry: at once


TRANSITIONS: dict[State, frozenset[State]] = {
    # PROCESSING → PENDING: its worker died or gave it back. DEAD_LETTER → PENDING: replayed.
    State.PENDING: frozenset({State.PROCESSING, State.CANCELLED}),
    State.PROCESSING: frozenset(
        {State.COMPLETED, State.FAILED, State.DEAD_LETTER, State.PENDING, State.CANCELLED}
    ),
    State.FAILED: frozenset({State.PROCESSING, State.CANCELLED}),
    State.DEAD_LETTER: frozenset({State.PENDING, State.CANCELLED}),
    State.COMPLETED: frozenset(),
    State.CANCELLED: frozenset(),
}
WAITING = (State.PENDING, State.FAILED)
OVER = (State.COMPLETED, State.DEAD_LETTER, State.CANCELLED)


class WrongTransition(ValueError):
    """The table of transitions does not hold this step."""


def check(before: State, after: State) -> None:
    """Raises WrongTransition."""
    if after not in TRANSITIONS[before]:
        raise WrongTransition(f"a job does not go from {before} to {after}")


def may_be_claimed(state: State, *, is_owner: bool, turn: Turn = Turn.NONE) -> bool:
    """By a worker that owns the row already or not; the claim's SQL says the same (`statements.CLAIMABLE`).

    The one step that leads where the job stands, from PROCESSING to PROCESSING under a higher fence, is its owner's: the
    connection broke between the claim's commit and its answer, and the claim is asked for again.
    """
    if state == State.PROCESSING:
        return is_owner
    return State.PROCESSING in TRANSITIONS[state] and turn in (Turn.NONE, Turn.HAS)


def sources(after: State) -> frozenset[State]:
    """The states from which `after` can be reached."""
    return frozenset(before for before, reachable in TRANSITIONS.items() if after in reachable)


class Priority(IntEnum):
    """Names on the scale 0..9; a number between two of them belongs to the lower class.

    Each class has its own list or queue on every broker, and an urgent class is served before the next is looked at.
    """

    LOW = 0
    NORMAL = 3
    HIGH = 6
    CRITICAL = 9


CLASSES = tuple(sorted(Priority, reverse=True))


def priority(value: int) -> int:
    """`value` when it is on the scale. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or not LOWEST <= value <= HIGHEST:
        raise ValueError(f"priority {value!r} is not a whole number from {LOWEST} to {HIGHEST}")
    return int(value)


def priority_class(value: int) -> Priority:
    """The class that a priority belongs to: 0–2 LOW, 3–5 NORMAL, 6–8 HIGH, 9 CRITICAL."""
    return next(named for named in CLASSES if value >= named)
