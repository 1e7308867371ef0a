"""Dead letters: replay or discard, one or many, each audited and conditional on the job still being dead."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import transaction
from django.db.models import CharField, Count, Max, Min, QuerySet
from django.db.models.functions import Cast

from foundation import audit
from foundation.secret_box import Sealed

from . import (
    conditions,
    finding,
    interventions,
    offload,
    payload_edit,
    payloads,
    policies,
    registry,
    secret_fields,
    storing,
    wakeup,
)
from .conf import conf
from .models import Job, JobEvent
from .publication import Wakeup
from .selection import Selection
from .states import State


class Group(NamedTuple):
    """Dead letters that failed alike. type, message, task: of `newest`. tasks, queues: how many different ones."""

    fingerprint: str
    type: str
    message: str
    task: str
    newest: UUID
    jobs: int
    tasks: int
    queues: int
    since: datetime | None
    latest: datetime | None


class Refused(ValueError):
    """The job cannot be replayed or discarded; the message says why."""


class NotDead(Refused):
    """The job is not in DEAD_LETTER (any more)."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.id} is {job.state}, not {State.DEAD_LETTER}")


class NotKept(Refused):
    """The job came through the broker, and its arguments were too large or of a kind that is not recorded."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.id} cannot be replayed: its arguments were not recorded")


def replay(job: Job, *, actor: Any, source: str, request_id: str | None = None, ip: str | None = None) -> Job:
    """Run a dead job again under its own id, with a whole new series of attempts. Raises NotDead or NotKept."""
    trace: dict[str, Any] = {"source": source, "request_id": request_id, "ip": ip}
    with transaction.atomic():
        before = _standing(job)
        if "not_kept" in (job.payload or {}):
            raise NotKept(job)
        is_governed = policies.is_governed(job.queue)
        if job.state != State.DEAD_LETTER or not interventions.replay(
            job, actor=_name(actor), is_governed=is_governed
        ):
            raise _refusal(job)
        job.refresh_from_db(fields=["run_after", "published_at"])  # by the database's clock
        audit.record(
            actor=actor, action="job.replay", target=job, before=before, after=_standing(job), **trace
        )
        message = wakeup.look(job.queue) if is_governed else Wakeup(job.id, job.queue, job.priority)
        transaction.on_commit(lambda: wakeup.publish([message]), robust=True)
    return job


def discard(
    job: Job, *, actor: Any, source: str, request_id: str | None = None, ip: str | None = None
) -> Job:
    """Give a dead job up: CANCELLED. Raises NotDead."""
    trace: dict[str, Any] = {"source": source, "request_id": request_id, "ip": ip}
    with transaction.atomic():
        before = _standing(job)
        if job.state != State.DEAD_LETTER or not interventions.discard(job, actor=_name(actor)):
            raise _refusal(job)
        audit.record(
            actor=actor, action="job.discard", target=job, before=before, after=_standing(job), **trace
        )
    return job


def edit(
    job: Job,
    payload: object,
    *,
    actor: Any,
    source: str,
    request_id: str | None = None,
    ip: str | None = None,
) -> dict[str, Any]:
    """Give a dead job another payload, checked as at enqueue; what is shown as dots and left so stays as it was.

    Returns what changed, as its history and the audit log tell it: without secrets. Raises NotDead, NotKept, UnknownTask
    or BadPayload, and then nothing is changed.
    """
    trace: dict[str, Any] = {"source": source, "request_id": request_id, "ip": ip}
    task = registry.find(job.name)
    with transaction.atomic():
        now = Job.objects.select_for_update().filter(id=job.id).first()
        if now is None:
            raise _refusal(job)
        if now.state != State.DEAD_LETTER:
            raise NotDead(now)
        stored = offload.load(now.id) if now.payload is None else now.payload
        if "not_kept" in stored:
            raise NotKept(now)
        plain, shown = _open(task, stored, now), secret_fields.mask(stored)
        text = task.accept(payload_edit.restored(payload, shown, plain), max_bytes=conf().MAX_PAYLOAD_BYTES)
        sealed = payloads.parse(text)
        changes = audit.mask(
            payload_edit.changes(plain, task.reveal(sealed), shown, secret_fields.mask(sealed))
        )
        if changes:
            storing.rewrite(now.id, text)
            detail = {"action": "payload edited", "actor": _name(actor), "changes": changes}
            JobEvent.objects.create(job_id=now.id, state=State.DEAD_LETTER, detail=detail)
            audit.record(actor=actor, action="job.edit", target=now, after={"changes": changes}, **trace)
    job.refresh_from_db()
    return dict(changes)


def dead(wanted: Selection = Selection()) -> QuerySet[Job]:  # noqa: B008  (frozen)
    """The dead letters among the jobs of a selection, newest first."""
    return finding.jobs(wanted).filter(conditions.DEAD).order_by("-id")


def groups(wanted: Selection = Selection(), *, most: int = 100) -> list[Group]:  # noqa: B008  (frozen)
    """The dead letters by what they failed of, the most frequent first. Two queries, however many there are."""
    found = (
        dead(wanted)
        .order_by()
        .values("fingerprint")
        .annotate(
            jobs=Count("id"),
            tasks=Count("name", distinct=True),
            queues=Count("queue", distinct=True),
            since=Min("finished_at"),
            latest=Max("finished_at"),
            newest=Max(Cast("id", CharField(max_length=36))),  # PostgreSQL has no maximum of uuids
        )
        .order_by("-jobs", "fingerprint")[:most]
    )
    rows = list(found)
    samples = Job.objects.defer("payload", "result").in_bulk([UUID(row["newest"]) for row in rows])
    return [_group(row, samples.get(UUID(row["newest"]))) for row in rows]


def _group(row: dict[str, Any], sample: Job | None) -> Group:
    error = (sample.last_error if sample else None) or {}
    return Group(
        fingerprint=row["fingerprint"],
        type=str(error.get("type", "")),
        message=str(error.get("message", "")),
        task=sample.name if sample else "",
        newest=UUID(row["newest"]),
        **{name: row[name] for name in ("jobs", "tasks", "queues", "since", "latest")},
    )


def _standing(job: Job) -> dict[str, Any]:
    return {"state": str(job.state), "attempt": job.attempt, "crash_count": job.crash_count}


def _open(task: registry.Task, stored: dict[str, Any], job: Job) -> dict[str, Any]:
    try:
        return task.reveal(stored)
    except Sealed as error:
        raise Refused(f"job {job.id} cannot be edited: {error}") from error


def _refusal(job: Job) -> Refused:
    try:
        job.refresh_from_db()
    except Job.DoesNotExist:
        return Refused(f"job {job.id} is gone: its queue kept it no longer")
    return NotDead(job)


def _name(actor: Any) -> str:
    return "system" if actor is None else str(actor)
