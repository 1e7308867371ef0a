"""The ledger: every statement that moves a job, each conditional on where the job stands and on its fence.

A step changes the row and writes its JobEvent in one transaction, or finds that somebody else was there first and
changes nothing. Leases are compared by the database's clock, so that the clocks of the hosts play no part. What a worker
does by the thousand is in `statements`; here is what people and the reconciler do.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Case, Exists, F, Lookup, Max, OuterRef, Q, QuerySet, Value, When
from django.db.models.functions import Least, Now

from . import statements, states
from .composition import Kind
from .fingerprints import fingerprint
from .models import Blob, Delivery, Job, JobEvent, Member, Tag, Worker, Workflow
from .statements import Claimed, End
from .states import State, Turn

_NONE: Mapping[UUID, UUID] = MappingProxyType({})
INSERT_ROWS, INSERT_BYTES = 1000, 2_000_000  # in one statement at most
BATCH = 500  # rows a look of the reconciler takes at most, so that no transaction gets long

# Beside every `published_at=None`: a job that comes back has given up its turn, and one without limits has none.
NO_TURN = Least(F("turn"), int(Turn.LATER))


class Wakeup(NamedTuple):
    """What the broker has to know about a job."""

    id: UUID
    queue: str
    priority: int


class Clock(Now):
    """The database's clock in UTC."""

    def as_mysql(self, compiler: Any, connection: Any, **extra: Any) -> tuple[str, Any]:
        # Django's Now() is CURRENT_TIMESTAMP there, in the time zone of the server, while columns are in UTC.
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **extra)

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> tuple[str, Any]:
        # As in statements/sqlite.py: the end of the present millisecond.
        at = "STRFTIME('%%%%Y-%%%%m-%%%%d %%%%H:%%%%M:%%%%f999', 'now')"
        return self.as_sql(compiler, connection, template=at, **extra)


# A waiting job whose time has come: its message goes out at once, or when it has its turn. Who lets it go sets `run_after`
# to then: by it a queue's latency counts, and one that was made long ago has not waited since.
TOLD: dict[str, Any] = {"published_at": Clock(), "turn": int(Turn.NONE)}
IN_LINE: dict[str, Any] = {"published_at": None, "turn": int(Turn.WAITS)}


_AFRESH = {  # of a job that is replayed
    "delivery": str(Delivery.LEDGER),  # also where the broker's message is long gone
    "attempt": 0,
    "crash_count": 0,
    "suspect": False,
    "cancel_requested": False,
    "cancel_forced": False,
    # One that is past would cancel it at its claim: whoever replays it wants it to run.
    "expires_at": Case(When(expires_at__gt=Clock(), then=F("expires_at"))),
}


class Condition(Lookup):
    """A text of ours that is true of a row. RawSQL would do, but MySQL is told `(text) = 1` then, and uses no index."""

    prepare_rhs = False

    def __init__(self, text: str) -> None:
        super().__init__(Value(True), text)

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        return f"({self.rhs})", []


# As texts in the statement: SQLite takes a partial index only where the query repeats its condition without parameters.
# Unqualified, so that they also hold in a subquery, where the table has another name.
_OPEN = Condition("state IN ('PENDING', 'FAILED') AND delivery = 'ledger'")
WAITS = Condition("state IN ('PENDING', 'FAILED') AND delivery = 'ledger' AND turn IN (0, 1, 3)")
OPEN = Condition("state IN ('PENDING', 'PROCESSING', 'FAILED')")
# True of every row: what finds the two kinds has an index for each, and the planner takes both where it is told of both.
OVER_OR_OPEN = Condition(
    "state IN ('COMPLETED', 'DEAD_LETTER', 'CANCELLED') OR state IN ('PENDING', 'PROCESSING', 'FAILED')"
)
DEAD = Condition("state = 'DEAD_LETTER'")
_RUNS = Condition("state = 'PROCESSING' AND delivery = 'ledger'")


def in_states(wanted: Iterable[State]) -> Condition:
    """As a text, for the sake of the partial indexes."""
    names = ", ".join(f"'{State(state).value}'" for state in wanted)
    return Condition(f"state IN ({names})")


def waiting() -> QuerySet[Job]:
    """The ledger's jobs that wait for a worker, due or not; those that wait for their turn are the governor's."""
    return Job.objects.filter(WAITS)


def backlog() -> QuerySet[Job]:
    """All of the ledger's jobs that wait to be run, due or not."""
    return Job.objects.filter(_OPEN)


def is_due() -> Q:
    """Its time has come."""
    return Q(run_after=None) | Q(run_after__lte=Clock())


# --- by the batch ----------------------------------------------------------------------------------------------------
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
                _releasing().note_all(steps, accepted)
    return claimed, accepted


def finish(worker: UUID, end: End, workflow: UUID | None) -> bool:
    """Record one end in the caller's transaction. False when its fence does not hold any more."""
    steps = _steps_of([end], {} if workflow is None else {end.id: workflow})
    with connection.cursor() as cursor:
        accepted = statements.of(connection.vendor).finish(cursor, worker, [end])
    if steps:
        _releasing().note_all(steps, accepted)
    return bool(accepted)


def note_fingerprints(errors: Mapping[UUID, str | None]) -> None:
    """Of jobs that have just become dead letters, by their errors' JSON texts; in the transaction of that step."""
    same: dict[str, list[UUID]] = {}
    for job_id, text in errors.items():
        same.setdefault(fingerprint(json.loads(text) if text else None), []).append(job_id)
    for key in sorted(same):
        Job.objects.filter(DEAD, id__in=same[key]).update(fingerprint=key)


def _parts(texts: Sequence[str]) -> Iterator[slice]:
    """Slices of at most INSERT_ROWS jobs and about INSERT_BYTES: MySQL takes packets of 16 MB."""
    start = size = 0
    for number, text in enumerate(texts):
        if number > start and (number - start >= INSERT_ROWS or size + len(text) > INSERT_BYTES):
            yield slice(start, number)
            start, size = number, 0
        size += len(text)
    yield slice(start, len(texts))


# --- by people -------------------------------------------------------------------------------------------------------
def replay(job: Job, *, actor: str, is_governed: bool = False) -> bool:
    """A dead job waits again, with a whole new series of attempts; its history keeps the old one.

    is_governed: its queue has limits, so it waits for its turn, and is not to be published.
    """
    return _move(
        job, State.PENDING, detail=_replayed(job, actor), run_after=Clock(), finished_at=None,
        **_AFRESH, **(IN_LINE if is_governed else TOLD),
    )  # fmt: skip


class Done(NamedTuple):
    """What was done to a part of many jobs. wakeups: to publish after the commit; of jobs that wait for a turn there is none."""

    jobs: int
    wakeups: Sequence[Wakeup] = ()


def replay_many(ids: Collection[UUID], *, actor: str, governed: Collection[str] = ()) -> Done:
    """As `replay`, of the dead ones among them whose arguments are on record; governed: queues with limits.

    Inside the caller's transaction. Rows that somebody else holds are left to him.
    """
    found = _locked(Job.objects.filter(DEAD, id__in=ids)).order_by("id")
    columns = ("id", "queue", "priority", "payload", "delivery", "attempt", "crash_count", "workflow")
    kept = [job for job in found.only(*columns) if "not_kept" not in (job.payload or {})]
    again: dict[str, Any] = {"state": State.PENDING, "run_after": Clock(), "finished_at": None, **_AFRESH}
    wakeups = _let_go(kept, governed, **again)
    JobEvent.objects.bulk_create(
        JobEvent(job_id=job.id, state=State.PENDING, detail=_replayed(job, actor)) for job in kept
    )
    _note((job.id, job.workflow, State.PENDING) for job in kept)
    return Done(len(kept), wakeups)


def run_many(ids: Collection[UUID], *, actor: str, governed: Collection[str] = ()) -> Done:
    """Those that wait for their time, or to be tried again, are due now. As `replay_many`.

    Not those that wait for other jobs of their workflows, nor the broker's, whose messages say when.
    """
    found = _locked(waiting().filter(id__in=ids, run_after__gt=Clock(), run_after__lt=states.NEVER))
    later = list(found.order_by("id").only("id", "queue", "priority", "state"))
    wakeups = _let_go(later, governed, run_after=Clock())
    detail = {"action": "run now", "actor": actor}
    JobEvent.objects.bulk_create(JobEvent(job_id=job.id, state=job.state, detail=detail) for job in later)
    return Done(len(later), wakeups)


def discard_many(ids: Collection[UUID], *, actor: str) -> Done:
    """As `discard`. As `replay_many`."""
    found = list(_locked(Job.objects.filter(DEAD, id__in=ids)).order_by("id").only("id", "workflow"))
    Job.objects.filter(id__in=[job.id for job in found]).update(state=State.CANCELLED)
    detail = {"action": "discarded", "actor": actor}
    JobEvent.objects.bulk_create(
        JobEvent(job_id=job.id, state=State.CANCELLED, detail=detail) for job in found
    )
    _note((job.id, job.workflow, State.CANCELLED) for job in found)
    return Done(len(found))


def _let_go(jobs: Sequence[Job], governed: Collection[str], **changes: Any) -> list[Wakeup]:
    """Locked jobs are due: those of queues with limits stand in line, the others are to be published."""
    told = [job for job in jobs if job.queue not in governed]
    in_line = [job.id for job in jobs if job.queue in governed]
    Job.objects.filter(id__in=[job.id for job in told]).update(**changes, **TOLD)
    if in_line:
        Job.objects.filter(id__in=in_line).update(**changes, **IN_LINE)
    return [Wakeup(job.id, job.queue, job.priority) for job in told]


def discard(job: Job, *, actor: str) -> bool:
    """A dead job that nobody wants any more."""
    return _move(job, State.CANCELLED, detail={"action": "discarded", "actor": actor})


def cancel(job: Job, *, actor: str, force: bool = False) -> bool:
    """A waiting job is over. A running one is asked to stop, or with `force` made to. False when neither was there."""
    detail = {"action": "cancelled", "actor": actor}
    if job.state in states.WAITING:
        over: dict[str, Any] = {"finished_at": Clock(), "unique_key": None, "turn": int(Turn.NONE)}
        return _move(job, State.CANCELLED, detail=detail, **over)
    asked = {"action": "cancel requested", "actor": actor, "force": force}
    changes = {"cancel_requested": True} | ({"cancel_forced": True} if force else {})
    with transaction.atomic():
        if not Job.objects.filter(_RUNS, id=job.id).update(**changes):
            return False
        JobEvent.objects.create(job_id=job.id, state=State.PROCESSING, worker=job.owner, detail=asked)
    return True


def cancel_many(ids: Collection[UUID], *, actor: str, force: bool = False) -> tuple[int, int]:
    """As `cancel`, of those of the ledger's jobs that are not over: (how many were cancelled, how many asked to stop).

    Inside the caller's transaction, who has locked the workflows that they are in.
    """
    open_ = Job.objects.select_for_update().filter(id__in=ids, delivery=Delivery.LEDGER).order_by("id")
    rows = list(open_.exclude(state__in=states.OVER).only("id", "state", "owner", "workflow"))
    waiting = [job for job in rows if job.state in states.WAITING]
    running = [job for job in rows if job.state == State.PROCESSING]
    Job.objects.filter(id__in=[job.id for job in waiting]).update(
        state=State.CANCELLED, finished_at=Clock(), unique_key=None, turn=int(Turn.NONE)
    )
    changes = {"cancel_requested": True} | ({"cancel_forced": True} if force else {})
    Job.objects.filter(id__in=[job.id for job in running]).update(**changes)
    detail = {"action": "cancelled", "actor": actor}
    asked = {"action": "cancel requested", "actor": actor, "force": force}
    JobEvent.objects.bulk_create(
        [JobEvent(job_id=job.id, state=State.CANCELLED, detail=detail) for job in waiting]
        + [JobEvent(job_id=job.id, state=State.PROCESSING, worker=job.owner, detail=asked) for job in running]
    )
    _note((job.id, job.workflow, State.CANCELLED) for job in waiting)
    return len(waiting), len(running)


# --- by the running job ----------------------------------------------------------------------------------------------
def mark_started(job_id: UUID, fence: int) -> bool:
    """Put a suspect's start on record before it starts. False when it is somebody else's meanwhile."""
    return bool(Job.objects.filter(_RUNS, id=job_id, fence=fence).update(is_marked=True))


def note_progress(job_id: UUID, fence: int, progress: float, note: str) -> bool:
    mine = Job.objects.filter(_RUNS, id=job_id, fence=fence)
    return bool(mine.update(progress=progress, progress_note=note))


# --- by the reconciler -----------------------------------------------------------------------------------------------
def lost_workers() -> list[Worker]:
    """Workers whose lease has ended and that still hold jobs."""
    holds = Exists(Job.objects.filter(_RUNS, owner=OuterRef("id")))
    return list(Worker.objects.filter(holds, lease_until__lte=Clock()))


def ownerless() -> list[UUID]:
    """Owners of running jobs without a row: deleted by hand."""
    known = Exists(Worker.objects.filter(id=OuterRef("owner")))
    return list(Job.objects.filter(_RUNS, ~known).values_list("owner", flat=True).distinct())


def release(owner: UUID, running: Collection[UUID], *, max_crashes: int, reason: str) -> list[Job]:
    """Take back what a worker held whose lease has ended; the jobs as they stand now.

    A job that provably ran (in `running`, its last word, or marked) is charged a crash, and is a dead letter after
    `max_crashes`; the others go back free. All are suspects from now on.
    """
    with transaction.atomic():
        if Worker.objects.filter(id=owner, lease_until__gt=Clock()).exists():
            return []  # it came back to life meanwhile
        held = _held_of(Job.objects.filter(_RUNS, owner=owner))
        return _set_free(held, running, max_crashes=max_crashes, reason=reason)


def take_back(
    owner: UUID, ids: Collection[UUID], *, ran: Collection[UUID], max_crashes: int, reason: str
) -> list[Job]:
    """Take back jobs that a live worker has on record but does not run (any more); those in `ran` are charged a crash."""
    with transaction.atomic():
        held = _held_of(Job.objects.filter(_RUNS, owner=owner, id__in=ids))
        return _set_free(held, ran, max_crashes=max_crashes, reason=reason)


def held_by(worker_id: UUID) -> set[UUID]:
    """The jobs that this worker should be running or about to run."""
    return set(Job.objects.filter(_RUNS, owner=worker_id).values_list("id", flat=True))


def due(governed: Collection[str] = ()) -> list[Wakeup]:
    """Jobs whose time has come and that the broker has not been told about; from now on they count as published.

    Those of queues with limits (`governed`) wait for their turn from now on, and are not among them.
    """
    return _mark_published(waiting().filter(is_due(), published_at=None), governed)


def stale_queues(older_than_s: float) -> list[str]:
    """Queues with jobs that were published this long ago and still wait: busy queues, or ones that lost messages."""
    return list(_stale(older_than_s).order_by("queue").values_list("queue", flat=True).distinct())


def stale(queue: str, older_than_s: float, governed: Collection[str] = ()) -> list[Wakeup]:
    """The waiting jobs of a queue whose messages were lost; from now on they count as published again. As `due`."""
    return _mark_published(_stale(older_than_s).filter(queue=queue), governed)


def overtaken(queue: str, slack_s: float, governed: Collection[str] = ()) -> list[Wakeup]:
    """Waiting jobs whose class is long past them: jobs published `slack_s` later are being run, so their messages are lost.

    The watermark of a busy queue, whose broker queue is never empty. From now on they count as published again. As `due`.
    """
    running = Job.objects.filter(_RUNS, queue=queue, published_at__lte=Clock()).order_by()
    newest = dict(running.values_list("priority").annotate(Max("published_at")))
    # The watermarks first: compared row by row with what runs, 10,000 waiting jobs cost SQLite 6 s under its write lock.
    passed = Q()
    for priority, published_at in newest.items():
        passed |= Q(priority=priority, published_at__lt=published_at - timedelta(seconds=slack_s))
    return _mark_published(waiting().filter(passed, is_due(), queue=queue), governed) if newest else []


def age(older_than_s: float) -> list[Wakeup]:
    """Raise jobs that have waited this long by one class, and publish them there: no class starves for ever."""
    since = Clock() - timedelta(seconds=older_than_s)
    old = waiting().filter(is_due(), published_at__lt=since, priority__lt=states.Priority.CRITICAL)
    if not old.exists():
        return []
    with transaction.atomic():
        found = list(_locked(old.order_by("id"))[:BATCH])
        for job in found:
            job.priority = min(states.HIGHEST, states.priority_class(job.priority) + 3)
        ids = [job.id for job in found]
        for step in {job.priority for job in found}:
            Job.objects.filter(id__in=[job.id for job in found if job.priority == step]).update(priority=step)
        Job.objects.filter(id__in=ids).update(published_at=Clock())
        JobEvent.objects.bulk_create(
            JobEvent(job_id=job.id, state=job.state, detail={"action": "aged", "priority": job.priority})
            for job in found
        )
    return [Wakeup(job.id, job.queue, job.priority) for job in found]


def unpublish(ids: Collection[UUID]) -> None:
    """The broker could not be told after all: the reconciler does it when it can."""
    waiting().filter(id__in=ids).update(published_at=None, turn=NO_TURN)


def prune(queue: str, state: State, older_than_s: float, *, upto: UUID | None = None) -> int:
    """Delete the queue's jobs that ended in `state` this long ago, BATCH of them at most. Returns how many.

    upto: of the ids up to there alone, by which an index leads to old jobs; without it all that are over are looked at.
    """
    since = Clock() - timedelta(seconds=older_than_s)
    # A unique key's window is kept by its row.
    is_free = Q(unique_key=None) | Q(unique_until=None) | Q(unique_until__lte=Clock())
    # Results of a workflow's jobs are wanted, and its dead letters hold it up, as long as it is not over.
    is_wanted = Q(Exists(Workflow.objects.filter(id=OuterRef("workflow"), finished_at=None)))
    if state != State.DEAD_LETTER:
        is_wanted |= Q(_is_called_back())
    over = Job.objects.filter(is_free, ~is_wanted, queue=queue, state=state, finished_at__lt=since)
    over = over if upto is None else over.filter(id__lte=upto)
    old = list(over.order_by("id").values_list("id", flat=True)[:BATCH])
    if not old:
        return 0
    with transaction.atomic():
        # Once more and locked: one that has been replayed meanwhile is to run.
        still = _locked(Job.objects.filter(id__in=old, state=state, finished_at__lt=since))
        ids = list(still.order_by("id").values_list("id", flat=True))
        if ids:
            JobEvent.objects.filter(job_id__in=ids).delete()
            Blob.objects.filter(job_id__in=ids).delete()
            Tag.objects.filter(job_id__in=ids).delete()
            Member.objects.filter(job__in=ids).delete()
            Job.objects.filter(id__in=ids).delete()
    return len(ids)


def _is_called_back() -> Exists:
    """Its batch is over and has a callback that is still to read the results, a dead one's replay included."""
    open_ = ["", str(State.DEAD_LETTER)]
    waits = Member.objects.filter(workflow=OuterRef("id"), opens=None, outcome__in=open_).exclude(role="")
    # By the batches, which are few: else PostgreSQL looks through the places of all jobs of all workflows.
    return Exists(Workflow.objects.filter(Exists(waits), id=OuterRef("workflow"), kind=Kind.BATCH.value))


# --- one job, one step -----------------------------------------------------------------------------------------------
def _move(job: Job, to: State, *, detail: dict[str, Any], **changes: Any) -> bool:
    before = State(job.state)
    states.check(before, to)
    with transaction.atomic():
        if job.workflow is not None:
            _releasing().lock([job.workflow])
        here = Job.objects.filter(id=job.id, state=before, fence=job.fence)
        if not here.update(state=to, **changes):
            return False
        JobEvent.objects.create(job_id=job.id, state=to, detail=detail)
        _note([(job.id, job.workflow, to)])
    for name, value in {"state": to.value, **changes}.items():
        if not hasattr(value, "resolve_expression"):  # what the database computed is not known here
            setattr(job, name, value)
    return True


def _held_of(jobs: QuerySet[Job]) -> list[Job]:
    """With their rows locked, and before them those of their workflows: in the order that everybody keeps."""
    flows = set(jobs.filter(workflow__isnull=False).values_list("workflow", flat=True))
    if flows:
        _releasing().lock(id for id in flows if id is not None)
    return list(_locked(jobs.order_by("id")))


def _set_free(held: list[Job], ran: Collection[UUID], *, max_crashes: int, reason: str) -> list[Job]:
    """held: locked rows in PROCESSING. Three updates and one insert, however many jobs."""
    charged = {job.id for job in held if job.is_marked or job.id in ran}
    for job in held:
        job.crash_count += job.id in charged
        job.state = (
            State.DEAD_LETTER if job.id in charged and job.crash_count >= max_crashes else State.PENDING
        )
    again = {"suspect": True, "is_marked": False, "published_at": None, "run_after": Clock(), "turn": NO_TURN}
    for state, is_charged in ((State.PENDING, False), (State.PENDING, True), (State.DEAD_LETTER, True)):
        ids = [job.id for job in held if job.state == state and (job.id in charged) == is_charged]
        if not ids:
            continue
        changes: dict[str, Any] = dict(again, crash_count=F("crash_count") + int(is_charged))
        if state == State.DEAD_LETTER:
            changes = {
                "crash_count": F("crash_count") + 1,
                "finished_at": Clock(),
                "last_error": _lost(reason),
                "fingerprint": fingerprint(_lost(reason)),
            }
            changes |= {"unique_key": None, "is_marked": False, "turn": int(Turn.NONE)}
        Job.objects.filter(id__in=ids).update(state=state, **changes)
    JobEvent.objects.bulk_create(
        JobEvent(job_id=job.id, state=job.state, worker=job.owner, detail=_told(job, charged, reason))
        for job in held
    )
    _note((job.id, job.workflow, State(job.state)) for job in held if job.state == State.DEAD_LETTER)
    return held


def _releasing() -> Any:
    from . import releasing  # which stands on this module

    return releasing


def _steps_of(ends: Sequence[End], members: Mapping[UUID, UUID]) -> dict[UUID, dict[UUID, State]]:
    """By workflow and job, with these workflows' rows locked: before the jobs' own, in the order that everybody keeps."""
    moves = [end for end in ends if end.id in members and end.state != State.PENDING]
    steps: dict[UUID, dict[UUID, State]] = {}
    for end in moves:
        steps.setdefault(members[end.id], {})[end.id] = State(end.state)
    if steps:
        _releasing().lock(steps)
    return steps


def _note(steps: Iterable[tuple[UUID, UUID | None, State]]) -> None:
    """Tell the workflows of those jobs that are in one; in the transaction of the step."""
    found: dict[UUID, dict[UUID, State]] = {}
    for job_id, workflow, state in steps:
        if workflow is not None:
            found.setdefault(workflow, {})[job_id] = state
    if found:
        _releasing().note_all(found)


def _replayed(job: Job, actor: str) -> dict[str, Any]:
    return {"action": "replayed", "actor": actor, "attempts": job.attempt, "crashes": job.crash_count}


def _lost(reason: str) -> dict[str, str]:
    return {"type": "WorkerLost", "message": f"{reason}, again and again", "traceback": ""}


def _told(job: Job, charged: Collection[UUID], reason: str) -> dict[str, Any]:
    return {"reason": reason, "charged": job.id in charged, "crashes": job.crash_count}


def _locked(jobs: QuerySet[Job]) -> QuerySet[Job]:
    """With their rows locked where the database can; several reconcilers share the work instead of waiting."""
    return jobs.select_for_update(skip_locked=connection.features.has_select_for_update_skip_locked)


def _stale(older_than_s: float) -> QuerySet[Job]:
    age = timedelta(seconds=older_than_s)
    # One that is still to come was written by a caller whose clock is wrong: its message may be lost as any other's.
    told = Q(published_at__lt=Clock() - age) | Q(published_at__gt=Clock() + age)
    return waiting().filter(told, is_due())


def _mark_published(jobs: QuerySet[Job], governed: Collection[str]) -> list[Wakeup]:
    if not jobs.exists():  # SQLite's transactions are IMMEDIATE: an idle look must not take the write lock
        return []
    with transaction.atomic():
        first = list(
            _locked(jobs).order_by("-priority", "id").only("id", "queue", "priority", "turn")[:BATCH]
        )
        in_line = [job.id for job in first if job.queue in governed and job.turn != Turn.HAS]
        told = [job for job in first if job.queue not in governed or job.turn == Turn.HAS]
        Job.objects.filter(id__in=[job.id for job in told]).update(published_at=Clock())
        # A queue that has no limits any more: what had to wait for its turn needs none.
        free = [job.id for job in told if job.turn == Turn.LATER]
        if free:
            Job.objects.filter(id__in=free).update(turn=int(Turn.NONE))
        if in_line:
            Job.objects.filter(id__in=in_line).update(**IN_LINE)
    return [Wakeup(job.id, job.queue, job.priority) for job in told]
