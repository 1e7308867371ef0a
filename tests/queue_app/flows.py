"""A worker in a few lines for tests of workflows: it claims what the broker was told of, and ends it as told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db import connections

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
    return held.id in ledger.exchange(worker.id, [], [ending], members=members)[1]


def releases(job: UUID) -> int:
    return sum(event.detail.get("action") == "released" for event in JobEvent.objects.filter(job_id=job))


def at_once(*acts: Callable[[], Any]) -> None:
    """Each on a thread and a connection of its own; errors are raised here."""
    start, errors = threading.Barrier(len(acts)), list[BaseException]()

    def reach(act: Callable[[], Any]) -> None:
        try:
            start.wait(60)
            act()
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=reach, args=[act]) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


def forget() -> None:
    Member.objects.all().delete()
    Workflow.objects.all().delete()
