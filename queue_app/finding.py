"""The jobs that a selection means, by index wherever there is one.

What has none, the arguments, is looked for among the newest `SEARCHED` of the jobs that the rest of the selection means; a
bulk action looks at all of them, a part at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import BooleanField, Case, Q, QuerySet, Value, When
from django.db.models.fields.json import KeyTransform

from . import conditions, selection
from .models import Job, Tag, Worker
from .selection import Selection

SEARCHED = 20_000
_FEW = 200  # jobs that are named one by one in the next statement
_MOST_WORKERS = 1000  # of one host
_SLACK = timedelta(seconds=2)  # between making an id and reading the clock for `created_at`


def jobs(wanted: Selection, among: QuerySet[Job] | None = None) -> QuerySet[Job]:
    """In no order of its own. among: all jobs, as the caller loads them."""
    found = indexed(wanted, among)
    return _searched(found, wanted) if wanted.arguments else found


def indexed(wanted: Selection, among: QuerySet[Job] | None = None) -> QuerySet[Job]:
    """Without the condition on the arguments."""
    found = Job.objects.all() if among is None else among
    plain = {
        "queue": wanted.queue,
        "name": wanted.task,
        "tenant": wanted.tenant,
        "request_id": wanted.request_id,
        "workflow": wanted.workflow,
        "parent": wanted.parent,
    }
    found = found.filter(**{column: value for column, value in plain.items() if value})
    if wanted.states:
        found = found.filter(conditions.in_states(wanted.states))
    elif connection.vendor == "postgresql" and (
        wanted.queue or wanted.task or wanted.tenant or wanted.worker
    ):
        found = found.filter(conditions.OVER_OR_OPEN)
    if wanted.fingerprint:
        found = found.filter(conditions.DEAD, fingerprint=wanted.fingerprint)
    if wanted.tag:
        found = found.filter(id__in=Tag.objects.filter(name=wanted.tag).values("job"))
    if wanted.worker:
        found = found.filter(owner__in=_workers(wanted.worker))
    return _in_time(_died(found, wanted.died_since, wanted.died_until), wanted.since, wanted.until)


def matching(found: QuerySet[Job], wanted: Selection) -> QuerySet[Job]:
    """Those of the jobs whose arguments are as the selection says."""
    paths, condition = _arguments(wanted)
    return found.alias(**paths).filter(condition)


def _arguments(wanted: Selection) -> tuple[dict[str, Any], Q]:
    """What stands at the paths into the payload, by a name for each, and what is wanted of it."""
    paths, condition = dict[str, Any](), Q()
    for number, (path, value) in enumerate(selection.pairs(wanted.arguments)):
        at: Any = "payload"
        for step in path:
            at = KeyTransform(step, at)
        paths[f"argument_{number}"] = at
        condition &= _is(f"argument_{number}", value)
    return paths, condition


def newest_until(moment: datetime) -> UUID:
    """The largest id that a job can have that was made up to then, by its caller's clock."""
    return UUID(int=_stamp(moment) + (1 << 80) - 1)


def _searched(found: QuerySet[Job], wanted: Selection) -> QuerySet[Job]:
    """Those among the newest whose arguments are as wanted.

    A list asks twice, how many there are and for a page; and given the condition, a database reads all of a large table for
    it, as it knows nothing of payloads. So where few are found their ids are the condition.
    """
    paths, condition = _arguments(wanted)
    matches = Case(When(condition, then=Value(True)), default=Value(False), output_field=BooleanField())
    newest = found.alias(**paths).annotate(matches=matches).order_by("-id").values("id", "matches")[:SEARCHED]
    sql, params = newest.query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT id FROM ({sql}) AS newest WHERE matches LIMIT {_FEW + 1}", params)  # noqa: S608  (the ORM's)
        ids = [UUID(str(id)) for (id,) in cursor.fetchall()]
    return found.filter(id__in=ids) if len(ids) <= _FEW else matching(_newest(found), wanted)


def _newest(found: QuerySet[Job]) -> QuerySet[Job]:
    """MySQL takes no LIMIT in a subquery: so the id that is just too old, by a query of its own."""
    beyond = found.order_by("-id").values_list("id", flat=True)[SEARCHED : SEARCHED + 1]
    last = list(beyond)
    return found.filter(id__gt=last[0]) if last else found


def _died(found: QuerySet[Job], since: datetime | None, until: datetime | None) -> QuerySet[Job]:
    if since is None and until is None:
        return found
    span: dict[str, Any] = {} if since is None else {"finished_at__gte": since}
    return found.filter(conditions.DEAD, **span, **({} if until is None else {"finished_at__lt": until}))


def _in_time(found: QuerySet[Job], since: datetime | None, until: datetime | None) -> QuerySet[Job]:
    """By the times in the ids, which have an index, and exactly by the column."""
    if since is not None:
        found = found.filter(id__gte=UUID(int=_stamp(since - _SLACK)), created_at__gte=since)
    if until is not None:
        found = found.filter(id__lte=newest_until(until + _SLACK), created_at__lt=until)
    return found


def _stamp(moment: datetime) -> int:
    """A UUID's first 48 bits: milliseconds since 1970 (RFC 9562, 5.7)."""
    return max(0, int(moment.timestamp() * 1000)) << 80


def _workers(text: str) -> Sequence[UUID]:
    try:
        return [UUID(text)]
    except ValueError:
        pass
    host, colon, pid = text.rpartition(":")
    named = Worker.objects.filter(host=text)
    if colon and pid.isascii() and pid.isdigit() and len(pid) < 10:
        named = Worker.objects.filter(Q(host=text) | Q(host=host, pid=int(pid)))
    return list(named.values_list("id", flat=True)[:_MOST_WORKERS])


def _is(alias: str, value: Any) -> Q:
    """A number is also found where it stands as a text: whoever types 42 does not know which it is."""
    same = Q(**{alias: value})
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return same | Q(**{alias: str(value)}) if is_number else same
