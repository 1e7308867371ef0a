"""The lifecycle of a broker job as events: what workers and publishers tell, packed for a stream, folded into rows.

    publisher: PENDING · worker: STARTED, then one end → pack → stream → unpack → fold(what the rows say) → rows and history

Pure: time, rows and the stream are the caller's. Events may come twice and in any order; `fold` never goes backwards.
An event is a list, because thousands a second are packed and read: KIND, ID, ATTEMPT, AT, ABOUT, then for the worker's
events REDELIVERED, and for an end STARTED_AT and TOLD.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID, uuid5

import orjson

from queue_app import failures
from queue_app.states import OVER, Priority, State

PENDING, STARTED, COMPLETED, FAILED, DEAD_LETTER, CANCELLED = range(6)
# Positions in an event. AT, STARTED_AT: seconds since 1970 by the teller's clock. ATTEMPT: 1 is the first run.
KIND, ID, ATTEMPT, AT, ABOUT, REDELIVERED, STARTED_AT, TOLD = range(8)

Event = list[Any]

_LENGTHS = (5, 6, 8)  # of PENDING, STARTED and an end

_STATES = (
    State.PENDING, State.PROCESSING, State.COMPLETED, State.FAILED, State.DEAD_LETTER, State.CANCELLED,
)  # fmt: skip
_NAMESPACE = UUID("0f2a9d0e-6b1c-4f0b-9c0a-5f1d3e8b7a64")  # of ids that are not UUIDs themselves
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_LONGEST_REPR = 1000  # Celery cuts a result's repr off at 1,024 characters: a longer one may not be whole
_SAME_S = 0.005  # databases keep milliseconds or microseconds: times this close are one time


class About(NamedTuple):
    """What a message says about its job. payload: JSON text. run_after, expires_at: seconds since 1970."""

    name: str
    queue: str
    tenant: str
    priority: int
    payload: str
    request_id: str
    max_attempts: int
    parent: str | None
    run_after: float | None
    expires_at: float | None


UNKNOWN = About("(not recorded)", "", "", Priority.NORMAL, "{}", "", 1, None, None, None)


class Standing(NamedTuple):
    """What a row says now; see the columns of Job."""

    state: str
    attempt: int
    crash_count: int
    owner: str | None
    started_at: float | None
    is_named: bool


class Step(NamedTuple):
    """An entry of a job's history. detail: JSON text."""

    id: str
    state: str
    at: float
    worker: str | None
    detail: str


@dataclass(slots=True)
class Row:
    """A job as the events leave it. about: to be written; None when the row has it already. result, error: JSON texts."""

    id: str
    is_new: bool
    state: str = State.PENDING
    attempt: int = 0
    crash_count: int = 0
    owner: str | None = None
    created_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    run_after: float | None = None
    result: str | None = None
    error: str | None = None
    about: About | None = None
    is_named: bool = False
    is_changed: bool = False


@dataclass(slots=True)
class Folded:
    rows: dict[str, Row] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)


# --- on the wire -----------------------------------------------------------------------------------------------------
def pack(worker: str, events: list[Event]) -> dict[str, bytes | str]:
    """The fields of one stream entry. worker: id of the teller's row, or empty."""
    try:
        packed = orjson.dumps(events)
    except TypeError:  # a text that is not UTF-8, in a message of somebody else's
        packed = orjson.dumps([event for event in events if _is_plain(event)])
    return {"w": worker, "e": packed}


def unpack(fields: Mapping[bytes, bytes]) -> tuple[str, list[Event]]:
    """Worker and events of an entry. ValueError for one that nobody of ours wrote."""
    events = orjson.loads(fields.get(b"e", b""))
    if not isinstance(events, list) or not all(map(_is_event, events)):
        raise ValueError("not a list of events")
    return fields.get(b"w", b"").decode(), events


def _is_plain(event: Event) -> bool:
    try:
        orjson.dumps(event)
    except TypeError:
        return False
    return True


def _is_event(found: object) -> bool:
    """Whether it has the shape of an event: the stream may hold what others wrote."""
    if type(found) is not list or len(found) not in _LENGTHS:
        return False
    kind, about = found[KIND], found[ABOUT]
    return (
        type(kind) is int
        and 0 <= kind <= CANCELLED
        and len(found) == _LENGTHS[min(kind, COMPLETED)]
        and type(found[ID]) is str
        and type(found[ATTEMPT]) is int
        and type(found[AT]) in (float, int)
        and (about is None or type(about) is list and len(about) == len(About._fields))
    )


def job_id(task_id: str) -> str:
    """The id of the job's row: the task's own when it is a UUID, else one that is always the same for it."""
    if _UUID.fullmatch(task_id):
        return task_id
    try:
        return str(UUID(task_id))
    except ValueError:
        return str(uuid5(_NAMESPACE, task_id))


# --- into rows -------------------------------------------------------------------------------------------------------
def fold(told: Iterable[tuple[str, Event]], standing: Mapping[str, Standing | None]) -> Folded:
    """What (worker, event) pairs make of the rows that stand. None in `standing`: a job that is not ours to change."""
    folded = Folded()
    for worker, event in told:
        id = job_id(event[ID])
        row = folded.rows.get(id)
        if row is None:
            if id in standing and standing[id] is None:
                continue
            row = folded.rows[id] = _row(id, standing.get(id))
        if event[ABOUT] is not None and not row.is_named:
            _learn(row, event, folded.steps)
        if event[KIND] == STARTED:
            _start(row, event[ATTEMPT], event[AT], worker or None, bool(event[REDELIVERED]), folded.steps)
        elif event[KIND] != PENDING:
            _end(row, event, worker or None, folded.steps)
    return folded


def _row(id: str, found: Standing | None) -> Row:
    if found is None:
        return Row(id, is_new=True, is_changed=True)
    return Row(
        id,
        is_new=False,
        state=found.state,
        attempt=found.attempt,
        crash_count=found.crash_count,
        owner=found.owner,
        started_at=found.started_at,
        is_named=found.is_named,
    )


def _learn(row: Row, event: Event, steps: list[Step]) -> None:
    row.about = About(*event[ABOUT])
    row.is_named = row.is_changed = True
    if event[KIND] != PENDING:
        return
    row.created_at = event[AT]
    if row.state == State.PENDING:
        row.run_after = row.about.run_after
    detail = "{}" if row.id == event[ID] else json.dumps({"task_id": event[ID][:200]})
    steps.append(Step(row.id, State.PENDING, event[AT], None, detail))


def _start(
    row: Row, attempt: int, at: float, worker: str | None, redelivered: bool, steps: list[Step]
) -> None:
    """A run began. One that was told before, or whose end was, changes nothing."""
    if row.state in OVER or attempt <= row.attempt:
        return
    detail = "{}"
    if row.state == State.PROCESSING:
        if attempt == row.attempt + 1:
            same_run = row.started_at is not None and abs(at - row.started_at) < _SAME_S
            if same_run and worker == row.owner or row.started_at is not None and at < row.started_at:
                return
            row.crash_count += 1  # the same attempt anew: the worker that had it is lost
            detail = json.dumps({"reason": "delivered again", "redelivered": redelivered})
        else:  # its end is on its way; the history has no gaps
            steps.append(Step(row.id, State.FAILED, at, row.owner, "{}"))
    row.state, row.attempt, row.owner, row.started_at = State.PROCESSING, attempt - 1, worker, at
    row.is_changed = True
    row.created_at = row.created_at or at
    steps.append(Step(row.id, State.PROCESSING, at, worker, detail))


def _end(row: Row, event: Event, worker: str | None, steps: list[Step]) -> None:
    attempt, kind, told = event[ATTEMPT], event[KIND], event[TOLD]
    if row.state in OVER or attempt <= row.attempt:
        return
    if event[STARTED_AT] is not None:
        _start(row, attempt, event[STARTED_AT], worker, bool(event[REDELIVERED]), steps)
        row.attempt = attempt
    row.state, row.is_changed = _STATES[kind], True
    row.created_at = row.created_at or event[AT]
    row.run_after = None
    detail = "{}"
    if kind == COMPLETED:
        row.result = result(told)
    elif kind == CANCELLED:
        detail = json.dumps({"reason": told})
    else:
        error, row.run_after = told["error"], told.get("run_after")
        row.error = json.dumps(error)
        detail = json.dumps(failures.in_history(error))
    if kind != FAILED:
        row.finished_at = event[AT]
    steps.append(Step(row.id, row.state, event[AT], worker, detail))


def result(told: str | None) -> str | None:
    """A result as JSON text, from its Python repr, which is all that a pool tells; as a text where it is not JSON."""
    if told is None or told == "None":
        return None
    if len(told) < _LONGEST_REPR:
        found = _as_json(told)
        if found is not None:
            return found
    return json.dumps({"repr": failures.clean(told)})


def _as_json(told: str) -> str | None:
    if '"' not in told and "\\" not in told:  # then every quote in it begins or ends a string
        found = told.replace("'", '"')
        with suppress(ValueError):
            orjson.loads(found)
            return found
    with suppress(ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        found = json.dumps(ast.literal_eval(told), allow_nan=False, ensure_ascii=False)
        found.encode()
        if r"\u0000" not in found:  # PostgreSQL stores no NUL
            return found
    return None
