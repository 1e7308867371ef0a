"""The rows behind the governor: who waits for a turn, who has one, and the steps between. Nothing reads a whole backlog.

LATER → (the reconciler, when due) → WAITS → grant → HAS → the run's end → none, or LATER when it is to run again
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Count, Q

from .clock import Clock
from .conditions import Condition, is_due
from .conditions import waiting as without_turns
from .models import Delivery, Job
from .publication import Wakeup
from .statements import turns as texts
from .states import State, Turn

BATCH = 1000  # rows of one step of a queue that gets limits or loses them
_PARTS = 100  # tenants in one statement; SQLite takes 500 at most
_AWAITED = Condition("NOT (turn = 0) AND turn = 2")
_HAS = Condition("NOT (turn = 0) AND turn = 3")
_IS_OPEN = Q(state__in=[State.PENDING.value, State.PROCESSING.value, State.FAILED.value])
# A CASE, because no planner looks into it: the rows are to be found by their ids, not among all that wait.
_STILL_WAITS = Condition("CASE turn WHEN 2 THEN 1 ELSE 0 END = 1")


class Held(NamedTuple):
    """Jobs of a tenant that have a turn. unstarted: not claimed by a worker yet."""

    jobs: int
    unstarted: int


def is_awaited(queue: str) -> bool:
    """Whether any job of the queue waits for its turn."""
    with connection.cursor() as cursor:
        cursor.execute(texts.ANY, [queue])
        return bool(cursor.fetchone()[0])


def queues() -> list[str]:
    """The queues of which jobs wait for their turns."""
    if connection.vendor == "mysql":
        return _walked(texts.NEXT_QUEUE, texts.NEXT_QUEUE, [], "")
    return _column(texts.QUEUES, [])


def tenants(queue: str) -> list[str]:
    """The tenants of which jobs wait for their turns, by name."""
    if connection.vendor == "mysql":
        first, following = (texts.NEXT_TENANT.format(after=after) for after in (">=", ">"))
        return _walked(first, following, [queue], "")
    return _column(texts.TENANTS, [queue, "", queue])


def waiting(queue: str) -> dict[str, int]:
    """How many jobs wait for their turns, by tenant. For people: it counts them all."""
    jobs = Job.objects.filter(_AWAITED, queue=queue).order_by()
    return dict(jobs.values_list("tenant").annotate(Count("id")))


def held(queue: str) -> dict[str, Held]:
    """What has a turn, by tenant; a few rows, as turns are few."""
    found: dict[str, Held] = {}
    # By state as well: a worker of an older release ends runs without giving their turns back.
    rows = Job.objects.filter(_HAS, _IS_OPEN, queue=queue).order_by().values_list("tenant", "state")
    for tenant, state, count in rows.annotate(Count("id")):
        before = found.get(tenant, Held(0, 0))
        unstarted = 0 if state == State.PROCESSING else count
        found[tenant] = Held(before.jobs + count, before.unstarted + unstarted)
    return found


def first(queue: str, wanted: Mapping[str, int]) -> dict[str, list[Wakeup]]:
    """The next so many jobs of each tenant: the most urgent first, the oldest of these first."""
    found: dict[str, list[Wakeup]] = {tenant: [] for tenant in wanted}
    names = list(wanted)
    for start in range(0, len(names), _PARTS):
        part = names[start : start + _PARTS]
        each = [
            texts.FIRST.format(number=number, jobs=int(wanted[tenant])) for number, tenant in enumerate(part)
        ]
        with connection.cursor() as cursor:
            cursor.execute(" UNION ALL ".join(each), [value for tenant in part for value in (queue, tenant)])
            for number, id, priority in cursor.fetchall():
                found[part[number]].append(Wakeup(UUID(str(id)), queue, priority))
    return found


def grant(ids: Sequence[UUID]) -> None:
    """They have their turns and count as published. One that does not wait any more, as it was cancelled, is left alone."""
    Job.objects.filter(_STILL_WAITS, id__in=ids).update(turn=int(Turn.HAS), published_at=Clock())


def adopt(queue: str) -> int:
    """Jobs that were stored or claimed when the queue had no limits, a portion of them. Returns how many."""
    jobs = Job.objects.filter(queue=queue, delivery=Delivery.LEDGER, turn=int(Turn.NONE))
    runs = list(jobs.filter(state=State.PROCESSING).values_list("id", flat=True)[:BATCH])
    due = list(without_turns().filter(is_due(), queue=queue, turn=0).values_list("id", flat=True)[:BATCH])
    if not runs and not due:
        return 0
    with transaction.atomic():
        jobs.filter(id__in=runs, state=State.PROCESSING).update(turn=int(Turn.HAS))
        waits = without_turns().filter(id__in=due, turn=int(Turn.NONE))
        waits.update(turn=int(Turn.WAITS), published_at=None)
    return len(runs) + len(due)


def let_go(queue: str) -> int:
    """Jobs that wait for turns in a queue that has no limits any more, a portion: the reconciler publishes them."""
    waits = Job.objects.filter(_AWAITED, queue=queue)
    ids = list(waits.values_list("id", flat=True)[:BATCH])
    return Job.objects.filter(_STILL_WAITS, id__in=ids).update(turn=int(Turn.LATER)) if ids else 0


def _column(text: str, values: Sequence[str]) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(text, values)
        return [row[0] for row in cursor.fetchall()]


def _walked(first: str, following: str, values: Sequence[str], start: str) -> list[str]:
    """From each name to the next one. first, following: the statements for the one after `start` and after each other."""
    found = _column(first, [*values, start])
    while more := _column(following, [*values, found[-1]]) if found else []:
        found += more
    return found
