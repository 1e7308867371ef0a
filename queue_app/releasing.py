"""What a step of a job means for its workflow: count it, let go who waited for it, drop who waits in vain.

lock the workflow → mark the members → counts → open gates → held jobs become due; a batch's callbacks → the row

In the transaction of the step, so a death between the two cannot be. What is done twice changes nothing: a member that is
over stays as it is, and only a held job is let go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from . import clock, composition, policies, wakeup
from .clock import Clock
from .composition import Counts, Role, Standing
from .models import Job, JobEvent, Member, Workflow
from .publication import BATCH, IN_LINE, TOLD, Wakeup
from .states import NEVER, OVER, State, Turn

_OPEN = ("", State.DEAD_LETTER.value, State.CANCELLED.value)  # outcomes that keep a gate shut
_FINAL = (State.COMPLETED.value, State.CANCELLED.value)

Steps = Mapping[UUID, Mapping[UUID, State]]  # by workflow and job: the states that they have gone to


def lock(workflows: Iterable[UUID]) -> list[Workflow]:
    """These rows, for the caller's transaction. Before the rows of their jobs and in this order: else two would deadlock."""
    rows = Workflow.objects.select_for_update().filter(id__in=set(workflows)).order_by("id")
    return list(rows)


def note_all(steps: Steps, accepted: Collection[UUID] | None = None) -> None:
    """Tell workflows of steps that were taken in this transaction; accepted: only those jobs' steps count."""
    for flow in lock(steps):
        taken = {job: state for job, state in steps[flow.id].items() if accepted is None or job in accepted}
        if taken:
            _note(flow, taken)


def note_steps(steps: Iterable[tuple[UUID, UUID | None, State]]) -> None:
    """As `note_all`, by job with its workflow: those of the jobs that are in one."""
    found: dict[UUID, dict[UUID, State]] = {}
    for job_id, workflow, state in steps:
        if workflow is not None:
            found.setdefault(workflow, {})[job_id] = state
    if found:
        note_all(found)


def settle(flow: Workflow) -> None:
    """Its row as its counts say, for a caller who has locked it and changed them."""
    _call_back(flow)
    _save(flow)


def find_missed() -> int:
    """Tell workflows of jobs whose steps they have not heard of, as of a worker with older code. Returns how many."""
    over = Job.objects.filter(id=OuterRef("job"), state__in=OVER)
    missed = Member.objects.filter(Exists(over), workflow__finished_at=None, outcome="")
    found = list(missed.order_by("workflow", "job").values_list("workflow", "job")[:BATCH])
    for workflow in sorted({row[0] for row in found}):
        jobs = [job for flow, job in found if flow == workflow]
        with transaction.atomic():
            lock([workflow])  # first: what the rows say then is their last word
            states = dict(Job.objects.filter(id__in=jobs, state__in=OVER).values_list("id", "state"))
            note_all({workflow: {job: State(state) for job, state in states.items()}})
    return len(found)


# --- one workflow, locked ---------------------------------------------------------------------------------------------
def _note(flow: Workflow, steps: Mapping[UUID, State]) -> None:
    gates: dict[str, set[int]] = {State.COMPLETED: set(), State.CANCELLED: set()}
    marks: dict[Standing, list[UUID]] = {}
    for part in parts(sorted(steps)):
        # By their keys alone: with the workflow as well SQLite reads all of a large one.
        here = Member.objects.filter(job__in=part).exclude(outcome__in=_FINAL)
        for job, opens, role, *columns in here.values_list("job", "opens", "role", *Standing._fields):
            before = Standing(*columns)
            after = composition.after(before, steps[job])
            if after == before:
                continue
            marks.setdefault(after, []).append(job)
            if role == Role.MEMBER:
                _count(flow, composition.counted(flow.counts, before, after))
            if opens is not None and after.outcome in gates:
                gates[after.outcome].add(opens)
    for standing, jobs in marks.items():
        for part in parts(jobs):
            Member.objects.filter(job__in=part).update(**standing._asdict())
    _open(flow, gates[State.COMPLETED])
    _drop(flow, gates[State.CANCELLED])
    settle(flow)


def _count(flow: Workflow, counts: Counts) -> None:
    for name, value in counts._asdict().items():
        setattr(flow, name, value)


def _open(flow: Workflow, gates: Collection[int]) -> None:
    """Let go what waits at those gates for which nobody else is to be waited."""
    if not gates:
        return
    # A probe for each that waits, which ends at the first shut one: a look at all that open a gate reads a large group
    # again for each batch of its ends.
    shut = Member.objects.filter(workflow=flow, opens=OuterRef("behind"), outcome__in=_OPEN)
    _let_go(list(Member.objects.filter(~Exists(shut), workflow=flow, behind__in=gates, is_held=True)))


def _drop(flow: Workflow, gates: Collection[int]) -> None:
    """What waits for a cancelled job waits in vain, and so does what waits for that."""
    while gates:
        held = list(Member.objects.filter(workflow=flow, behind__in=gates, is_held=True))
        _cancel(held, "a job that it waited for was cancelled")
        flow.tried += sum(not member.is_tried for member in held)
        flow.cancelled += len(held)
        gates = {member.opens for member in held if member.opens is not None}


def _call_back(flow: Workflow) -> None:
    if flow.kind != composition.Kind.BATCH or flow.finished_at is not None or flow.is_cancelled:
        return
    calls = Member.objects.filter(workflow=flow, is_held=True)
    due, vain = composition.calls_for(flow.counts), composition.rules_out(flow.counts)
    if due:
        _let_go(list(calls.filter(role__in=due)))
    if vain:
        _cancel(list(calls.filter(role__in=vain - due)), "it will never be called")


def _save(flow: Workflow) -> None:
    counts: dict[str, Any] = flow.counts._asdict()
    is_over = composition.is_over(flow.counts, is_cancelled=flow.is_cancelled)
    if is_over and flow.finished_at is None:
        counts["finished_at"] = flow.finished_at = clock.now()
    Workflow.objects.filter(id=flow.id).update(is_cancelled=flow.is_cancelled, **counts)


def _let_go(members: Sequence[Member]) -> None:
    """Held jobs wait for a worker from now on, or for the time that their options name."""
    timed = [member for member in members if member.delay_s or member.run_at or member.expires_s]
    plain = [member.job for member in members if member not in timed]
    sent = _due([member.job for member in timed if _becomes_due(member)])
    sent += _due(plain)
    for part in parts([member.job for member in members]):
        Member.objects.filter(job__in=part).update(is_held=False)
    if sent:
        transaction.on_commit(lambda: wakeup.publish(sent), robust=True)


def _due(jobs: Sequence[UUID]) -> list[Wakeup]:
    # A site's process cancels, a child of the pool ends jobs by `job.atomic()`: neither looks at the limits by itself.
    governed = policies.governed_now()
    found: list[Wakeup] = []
    for part in parts(jobs):
        held = _held(part).select_for_update().values_list("id", "queue", "priority")
        rows = [Wakeup(*row) for row in held]
        told = [row for row in rows if row.queue not in governed]
        in_line = [row for row in rows if row.queue in governed]
        _held([row.id for row in told]).update(run_after=Clock(), **TOLD)
        if in_line:
            _held([row.id for row in in_line]).update(run_after=Clock(), **IN_LINE)
        _tell([row.id for row in rows], State.PENDING, {"action": "released"})
        found += told + [wakeup.look(queue) for queue in sorted({row.queue for row in in_line})]
    return found


def _becomes_due(member: Member) -> bool:
    """Put the times that count from now on its row. Whether it is due at once; else the reconciler publishes it."""
    now = clock.now()
    run_after = now + timedelta(seconds=member.delay_s) if member.delay_s else member.run_at
    waits = run_after is not None and run_after > now
    since: datetime = run_after if waits and run_after is not None else now
    expires_at = None if member.expires_s is None else since + timedelta(seconds=member.expires_s)
    _held([member.job]).update(expires_at=expires_at, **({"run_after": run_after} if waits else {}))
    if waits:
        _tell([member.job], State.PENDING, {"action": "released"})
    return not waits


def _cancel(members: Sequence[Member], reason: str) -> None:
    for part in parts([member.job for member in members]):
        jobs = list(_held(part).select_for_update().values_list("id", flat=True))
        _held(jobs).update(state=State.CANCELLED, finished_at=Clock(), run_after=None, turn=int(Turn.NONE))
        _tell(jobs, State.CANCELLED, {"reason": reason})
        Member.objects.filter(job__in=part).update(
            outcome=State.CANCELLED.value, is_tried=True, is_held=False
        )


def _held(jobs: Collection[UUID]) -> Any:
    return Job.objects.filter(Q(state=State.PENDING, run_after=NEVER), id__in=jobs)


def _tell(jobs: Iterable[UUID], state: State, detail: dict[str, Any]) -> None:
    JobEvent.objects.bulk_create(JobEvent(job_id=job, state=state, detail=detail) for job in jobs)


def parts(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    """As many at a time as one statement takes."""
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]
