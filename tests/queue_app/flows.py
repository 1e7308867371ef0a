"""A worker in a few lines for tests of workflows: it claims what the broker was told of, and ends it as told."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from queue_app import ledger
from queue_app.models import Job, JobEvent, Member, Worker, Workflow
from queue_app.statements import Claimed, End
from queue_app.states import State

ERROR = json.dumps({"type": "OSError", "message": "no", "traceback": ""})


def job_of(flow: Workflow, position: int) -> Job:
    return Job.objects.get(id=flow.members.get(position=position).job)


def states_of(flow: Workflow) -> list[str]:
    """By position; "held" for those that wait for others."""
    jobs = Job.objects.in_bulk(list(flow.members.values_list("job", flat=True)))
    found = [jobs[member.job] for member in flow.members.order_by("position")]
    return ["held" if job.is_held else job.state for job in found]


def claim(worker: Worker, *jobs: UUID) -> list[Claimed]:
    return ledger.exchange(worker.id, list(jobs), [])[0]


def end(worker: Worker, job: UUID, state: State = State.COMPLETED, result: Any = None, **said: Any) -> bool:
    """Claim this job and end it. Whether there was something to claim."""
    claimed = claim(worker, job)
    return bool(claimed) and finish(worker, claimed[0], state, result, **said)


def finish(
    worker: Worker, held: Claimed, state: State = State.COMPLETED, result: Any = None, **said: Any
) -> bool:
    if state in (State.DEAD_LETTER, State.FAILED):
        said["error"] = ERROR
    ending = End(held.id, held.fence, state, 1, json.dumps(result), **said)
    members = {} if held.workflow is None else {held.id: held.workflow}
    return held.id in ledger.exchange(worker.id, [], [ending], members)[1]


def releases(job: UUID) -> int:
    return sum(event.detail.get("action") == "released" for event in JobEvent.objects.filter(job_id=job))


def forget() -> None:
    Member.objects.all().delete()
    Workflow.objects.all().delete()
