"""Workflows: store one with all its jobs, add to a batch, read what its jobs have answered.

flow → plan → rows of the jobs (those that wait are held), their places, the workflow's row: the caller's transaction
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db.models import Max
from django.utils import timezone

from foundation import request_id as request_ids
from orm_app.transactions import transaction

from . import composition, intake, lineage, releasing, storing
from .composition import BadWorkflow, Batch, Chain, Group, Kind, Node, Role, Slot
from .models import Delivery, Job, Member, Workflow
from .states import NEVER, State, Turn
from .uuid7 import uuid7

_KINDS: dict[type, Kind] = {Chain: Kind.CHAIN, Group: Kind.GROUP, Batch: Kind.BATCH}
_EACH_ITS_OWN = ("created_at", "published_at")  # moments of storing, the same for all of a workflow


class Finished(BadWorkflow):
    """The batch is over, or was cancelled: nothing can be added to it any more."""


@dataclass(slots=True)
class _New:
    """A job that is to be stored, and its place."""

    slot: Slot
    prepared: intake.Prepared
    member: Member


def enqueue_workflow(flow: composition.Flow) -> Workflow:
    """Store a workflow and have its jobs run; inside a transaction it exists when that commits, and only then.

    ValueError stores nothing: BadWorkflow (empty, cyclic, no part of one, an option that a part cannot have), and whatever
    `enqueue` would raise for one of its calls.
    """
    slots = composition.plan(flow)
    row = Workflow(
        id=uuid7(),
        kind=_KINDS[type(flow)].value,
        name=flow.name,
        total=sum(slot.role == Role.MEMBER for slot in slots),
        parent=lineage.parent(None),
        request_id=request_ids.current() or "",
    )
    new = [_prepared(row, slot, position) for position, slot in enumerate(slots)]
    with transaction(savepoint=False):
        row.save(force_insert=True)
        _store(new)
    return row


def add_to_batch(target: Workflow | UUID, *nodes: Node) -> list[Job]:
    """More jobs for a batch that is not over: from anywhere, so also from its own jobs (`job.workflow`).

    Raises Finished, BadWorkflow or what `enqueue` raises, and then stores nothing.
    """
    with transaction():
        row = _open_batch(_id(target))
        last = row.members.aggregate(at=Max("position"), opens=Max("opens"))
        first_gate = 1 + (last["opens"] or 0)
        slots = composition.plan_more(nodes, first_gate=first_gate)
        new = [_prepared(row, slot, last["at"] + 1 + number) for number, slot in enumerate(slots)]
        jobs = _store(new)
        row.total += len(new)
        releasing.settle(row)
    return jobs


aenqueue_workflow = sync_to_async(enqueue_workflow)
aadd_to_batch = sync_to_async(add_to_batch)


def results_before(job_id: UUID) -> list[Any]:
    """What the jobs have answered for which this one waited, in their order; for a callback, all of its batch."""
    me = Member.objects.filter(job=job_id).first()
    if me is None or (me.behind is None and me.role == Role.MEMBER):
        return []
    before = Member.objects.filter(workflow=me.workflow_id, role=Role.MEMBER.value).order_by("position")
    if me.role == Role.MEMBER:
        before = before.filter(opens=me.behind)
    jobs = list(before.filter(outcome=State.COMPLETED.value).values_list("job", flat=True))
    results: dict[UUID, Any] = {}
    for part in releasing.parts(jobs):
        results |= dict(Job.objects.filter(id__in=part).values_list("id", "result"))
    return [results.get(job) for job in jobs]


def _id(target: Workflow | UUID) -> UUID:
    if isinstance(target, Workflow):
        return target.id
    try:
        return target if isinstance(target, UUID) else UUID(target)
    except (ValueError, TypeError, AttributeError) as error:
        raise BadWorkflow(f"{str(target)[:60]!r} is no workflow, nor the id of one") from error


def _open_batch(id: UUID) -> Workflow:
    found = releasing.lock([id])
    if not found:
        raise BadWorkflow(f"there is no workflow {id}")
    (row,) = found
    if row.kind != Kind.BATCH:
        raise BadWorkflow(f"workflow {id} is a {row.kind}: only a batch takes more jobs")
    if row.finished_at is not None or row.is_cancelled:
        raise Finished(f"batch {id} is {row.status}: it takes no more jobs")
    return row


def _prepared(flow: Workflow, slot: Slot, position: int) -> _New:
    options = dict(slot.call.options)
    if options.get("unique") is not None:
        raise BadWorkflow("unique: a job of a workflow is its own, never one that is there already")
    is_held = slot.behind is not None or slot.role != Role.MEMBER
    prepared = intake.prepare(slot.call.target, slot.call.payload, options)
    if prepared.common["delivery"] == Delivery.BROKER:
        raise BadWorkflow(
            f"queue {prepared.common['queue']!r} has broker delivery: a workflow needs the ledger"
        )
    member = Member(
        job=uuid7(),
        workflow_id=flow.id,
        position=position,
        role=slot.role.value,
        behind=slot.behind,
        opens=slot.opens,
        is_held=is_held,
    )
    prepared.common["workflow"] = flow.id
    if is_held:
        _hold(prepared.common, member, options)
    return _New(slot, prepared, member)


def _hold(common: dict[str, Any], member: Member, options: dict[str, Any]) -> None:
    """Its times count from when it is let go."""
    if options.get("delay"):
        member.delay_s = intake.seconds("delay", options["delay"])
    else:
        member.run_at = common["run_after"]
    if options.get("expires") is not None:
        member.expires_s = intake.seconds("expires", options["expires"])
    turn = Turn.LATER if common["turn"] else Turn.NONE
    common.update(run_after=NEVER, expires_at=None, published_at=None, turn=int(turn))


def _store(new: Sequence[_New]) -> list[Job]:
    """Alike ones by one statement: a thousand calls of one task are one insert."""
    now = timezone.now()
    alike: dict[Any, list[_New]] = {}
    for one in new:
        _at(one.prepared.common, now)
        alike.setdefault(tuple(one.prepared.common.items()), []).append(one)
    made: dict[UUID, Job] = {}
    for together in alike.values():
        common, ids = together[0].prepared.common, [one.member.job for one in together]
        storing.insert(common, ids, [one.prepared.text for one in together])
        for job in storing.as_read(common, ids, [one.prepared.value for one in together]):
            made[job.id] = job
    Member.objects.bulk_create([one.member for one in new], batch_size=500)
    jobs = [made[one.member.job] for one in new]
    intake.publish_on_commit(jobs)
    return jobs


def _at(common: dict[str, Any], now: datetime) -> None:
    for name in _EACH_ITS_OWN:
        if common[name] is not None:
            common[name] = now


def members(flow: Workflow, *, most: int) -> list[tuple[Member, Job | None]]:
    """Its first places with their jobs; None for one that is past its retention. Two queries."""
    places = list(flow.members.order_by("position")[:most])
    found = Job.objects.defer("payload", "result").in_bulk([place.job for place in places])
    return [(place, found.get(place.job)) for place in places]
