"""Cancel a whole tree: a workflow, or a job, with everything that its jobs have enqueued and started; audited.

roots → children by their parent, workflows by theirs, level by level → lock the workflows → waiting ones are over,
running ones are asked, by force if so wished → one audit entry
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from uuid import UUID

from django.db import transaction

from foundation import audit

from . import cancelling, interventions, releasing, states
from .models import Delivery, Job, Member, Workflow

LARGEST = 100_000  # jobs


class NothingToCancel(ValueError):
    """All of it is over already."""


class TooLarge(ValueError):
    """The tree has more jobs than are cancelled at once."""


class Cut(NamedTuple):
    """How many jobs were cancelled, how many that run were asked to stop, and how many were over already."""

    cancelled: int
    asked: int
    over: int


def cancel_tree(
    root: Job | Workflow,
    *,
    actor: Any,
    source: str,
    request_id: str | None = None,
    ip: str | None = None,
    force: bool = False,
) -> Cut:
    """Cancel `root` and all below it, in one transaction. Raises NothingToCancel or TooLarge.

    Each job goes as `cancelling.cancel` has it; a dead letter is over, and stays one. What a job enqueues that runs still
    and has not noticed belongs to the tree no more, but a cancelled batch takes no more jobs.
    """
    trace: dict[str, Any] = {"source": source, "request_id": request_id, "ip": ip}
    told = "system" if actor is None else str(actor)
    with transaction.atomic():
        jobs, flows = _below(root)
        locked = releasing.lock({*flows, *_flows_of(jobs)})
        jobs = list(
            dict.fromkeys([*jobs, *_members(flows)])
        )  # what was added to a batch before it was locked
        open_ = [flow for flow in locked if flow.id in flows and flow.finished_at is None]
        _mark(open_)
        cut = _cut(jobs, actor=told, force=force)
        _settle(open_)
        if not (cut.cancelled or cut.asked or open_):
            raise NothingToCancel(f"{root._meta.verbose_name} {root.pk} and all below it is over")
        audit.record(
            actor=actor,
            action=f"{root._meta.model_name}.cancel_tree",
            target=root,
            after={**cut._asdict(), "forced": force},
            **trace,
        )
    root.refresh_from_db()
    return cut


def _below(root: Job | Workflow) -> tuple[list[UUID], list[UUID]]:
    """The jobs and the workflows of the tree. A job that is its own ancestor is met once."""
    flows = [root.id] if isinstance(root, Workflow) else []
    jobs = _members(flows) if flows else [root.id]
    seen, level = set(jobs), jobs
    while level:
        if len(jobs) > LARGEST:
            raise TooLarge(f"more than {LARGEST:,} jobs: cancel its parts one by one")
        started = _started_by(level)
        flows += started
        found = [*_children(level), *_members(started)]
        level = [id for id in dict.fromkeys(found) if id not in seen]
        seen.update(level)
        jobs = [*jobs, *level]
    return jobs, flows


def _members(flows: Iterable[UUID]) -> list[UUID]:
    places = Member.objects.filter(workflow__in=list(flows)).order_by("workflow", "position")
    return list(places.values_list("job", flat=True))


def _children(jobs: Collection[UUID]) -> Iterator[UUID]:
    for part in releasing.parts(list(jobs)):
        yield from Job.objects.filter(parent__in=part).order_by("id").values_list("id", flat=True)


def _started_by(jobs: Collection[UUID]) -> list[UUID]:
    found: list[UUID] = []
    for part in releasing.parts(list(jobs)):
        found += Workflow.objects.filter(parent__in=part).values_list("id", flat=True)
    return found


def _flows_of(jobs: Collection[UUID]) -> set[UUID]:
    found = set[UUID]()
    for part in releasing.parts(list(jobs)):
        inside = Job.objects.filter(id__in=part, workflow__isnull=False).values_list("workflow", flat=True)
        found |= {id for id in inside.distinct() if id is not None}
    return found


def _cut(jobs: list[UUID], *, actor: str, force: bool) -> Cut:
    cancelled = asked = 0
    for part in releasing.parts(jobs):
        stopped, told = interventions.cancel_many(part, actor=actor, force=force)
        cancelled, asked = cancelled + stopped, asked + told
        for job in Job.objects.filter(id__in=part, delivery=Delivery.BROKER).exclude(state__in=states.OVER):
            with suppress(cancelling.Over):  # the recorder has just heard of its end
                cancelling.revoke(job, force=force)
                asked += 1
    return Cut(cancelled, asked, len(jobs) - cancelled - asked)


def _mark(flows: Sequence[Workflow]) -> None:
    """First, so that no callback of a batch is called for what happens next."""
    Workflow.objects.filter(id__in=[flow.id for flow in flows]).update(is_cancelled=True)


def _settle(flows: Sequence[Workflow]) -> None:
    for flow in flows:
        flow.refresh_from_db()  # the steps of their jobs have been counted
        releasing.settle(flow)
