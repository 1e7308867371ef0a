"""The ledger's hot path: jobs are stored, claimed and finished by the batch, in the words of `statements`.

A step changes the row and writes its JobEvent in one transaction, or finds that somebody else was there first and
changes nothing: each is conditional on where the job stands and on its fence. Leases are compared by the database's
clock, so that the clocks of the hosts play no part. What people do to jobs is in `interventions`, what comes back from lost
workers in `recovery`, what the broker is told in `publication`, what is deleted in `retention`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from . import releasing, statements
from .conditions import DEAD, RUNS
from .fingerprints import fingerprint
from .models import Job
from .statements import Claimed, End
from .states import State

_NONE: Mapping[UUID, UUID] = MappingProxyType({})
INSERT_ROWS, INSERT_BYTES = 1000, 2_000_000  # in one statement at most


def insert(
    common: Mapping[str, Any], ids: Sequence[UUID], texts: Sequence[str], keys: Sequence[str] = ()
) -> set[UUID]:
    """Store new jobs and their first events, in the caller's transaction; the ids of those whose unique keys were free.

    common: the columns that they share. texts: their payloads as JSON. Up to INSERT_ROWS are one statement.
    """
    hand = statements.of(connection.vendor)
    adapt = connection.ops.adapt_datetimefield_value
    row = [
        adapt(value) if isinstance(value, datetime) else value
        for value in map(common.__getitem__, statements.COMMON)
    ]
    made = set[UUID]()
    with connection.cursor() as cursor:
        for part in _parts(texts):
            made |= hand.insert(cursor, statements.New(ids[part], texts[part], keys[part], row))
    return made


def exchange(
    worker: UUID,
    ids: Sequence[UUID],
    ends: Sequence[End],
    *,
    members: Mapping[UUID, UUID] = _NONE,
    governed: Collection[str] = (),
) -> tuple[list[Claimed], set[UUID]]:
    """Record ends and claim jobs in one transaction: (the claimed, the ids whose ends the fences let pass).

    members: the workflows of those of the ended jobs that are in one. governed: queues with limits, as far as this worker
    knows.
    """
    dead = {end.id: end.error for end in ends if end.state == State.DEAD_LETTER}
    with connection.cursor() as cursor:
        exchange_ = partial(statements.of(connection.vendor).exchange, cursor, worker, ids, ends, governed)
        if not (dead or members):  # the fast way: no statement more than the exchange's own
            return exchange_()
        with transaction.atomic():
            steps = _steps_of(ends, members)
            claimed, accepted = exchange_()
            note_fingerprints({id: text for id, text in dead.items() if id in accepted})
            if steps:
                releasing.note_all(steps, accepted)
    return claimed, accepted


def finish(worker: UUID, end: End, workflow: UUID | None) -> bool:
    """Record one end in the caller's transaction. False when its fence does not hold any more."""
    steps = _steps_of([end], {} if workflow is None else {end.id: workflow})
    with connection.cursor() as cursor:
        accepted = statements.of(connection.vendor).finish(cursor, worker, [end])
    if steps:
        releasing.note_all(steps, accepted)
    return bool(accepted)


def note_fingerprints(errors: Mapping[UUID, str | None]) -> None:
    """Of jobs that have just become dead letters, by their errors' JSON texts; in the transaction of that step."""
    same: dict[str, list[UUID]] = {}
    for job_id, text in errors.items():
        same.setdefault(fingerprint(json.loads(text) if text else None), []).append(job_id)
    for key in sorted(same):
        Job.objects.filter(DEAD, id__in=same[key]).update(fingerprint=key)


def mark_started(job_id: UUID, fence: int) -> bool:
    """Put a suspect's start on record before it starts. False when it is somebody else's meanwhile."""
    return bool(Job.objects.filter(RUNS, id=job_id, fence=fence).update(is_marked=True))


def note_progress(job_id: UUID, fence: int, progress: float, note: str) -> bool:
    mine = Job.objects.filter(RUNS, id=job_id, fence=fence)
    return bool(mine.update(progress=progress, progress_note=note))


def _parts(texts: Sequence[str]) -> Iterator[slice]:
    """Slices of at most INSERT_ROWS jobs and about INSERT_BYTES: MySQL takes packets of 16 MB."""
    start = size = 0
    for number, text in enumerate(texts):
        if number > start and (number - start >= INSERT_ROWS or size + len(text) > INSERT_BYTES):
            yield slice(start, number)
            start, size = number, 0
        size += len(text)
    yield slice(start, len(texts))


def _steps_of(ends: Sequence[End], members: Mapping[UUID, UUID]) -> dict[UUID, dict[UUID, State]]:
    """By workflow and job, with these workflows' rows locked: before the jobs' own, in the order that everybody keeps."""
    moves = [end for end in ends if end.id in members and end.state != State.PENDING]
    steps: dict[UUID, dict[UUID, State]] = {}
    for end in moves:
        steps.setdefault(members[end.id], {})[end.id] = State(end.state)
    if steps:
        releasing.lock(steps)
    return steps
