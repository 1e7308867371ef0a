"""Coarser levels of the statistics: closed spans of a finer level are summed up, part by part, and old ones are deleted.

Each part moves the level's mark in its transaction, so whoever is killed, the next leader goes on from there. A step that is
counted after its span was summed up is added to both (rollup_rows.carry).
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q, QuerySet

from . import clock, rollup_rows
from .conf import conf
from .levels import AGES, EPOCH, LEVELS, Key, due_to, finer, floor, kept_from
from .models import Rollup, RollupLevel

_LOOK_S = 0.5  # at one look; more is left to the next one
_PART = 2_000  # finer rows in one transaction


def fold(settled: datetime) -> int:
    """Sum up what is over, for a bounded time. settled: steps before it are counted. Returns how many rows were added up."""
    began, done = time.monotonic(), 0
    for step_s in LEVELS[1:]:
        while _is_due(step_s, settled):
            done += fold_part(step_s, settled)
            if time.monotonic() - began > _LOOK_S:
                return done
    return done


def _is_due(step_s: int, settled: datetime) -> bool:
    marks = rollup_rows.marks()
    return marks[step_s].upto < due_to(step_s, marks, settled)


def fold_part(step_s: int, settled: datetime) -> int:
    """Add rows of one span that are not in this level yet to it. Returns how many."""
    with transaction.atomic():
        rollup_rows.hold()
        marks = rollup_rows.marks()  # now that nobody else moves them
        mark, end = marks[step_s], due_to(step_s, marks, settled)
        if mark.upto >= end:
            return 0
        span_end = floor(mark.upto, step_s) + timedelta(seconds=step_s)
        rows = _sources(step_s).filter(
            Q(at__gt=mark.upto) | Q(at=mark.upto, id__gt=mark.row), at__gte=mark.upto, at__lt=span_end
        )
        found = [
            (row_id, Key(*key), tally)
            for (row_id, *key), tally in rollup_rows.tallied(
                rows.order_by("at", "id")[:_PART], "id", *Key._fields
            )
        ]
        if len(found) == _PART:
            last_id, last, _ = found[-1]
            _move(step_s, last.at, last_id)
        else:
            _move(step_s, _next(step_s, span_end, end), 0)
        rollup_rows.add(rollup_rows.sum_up(((key, tally) for _, key, tally in found), step_s))
    return len(found)


def _sources(step_s: int) -> QuerySet[Rollup]:
    """The rows that this level is summed up from: those of all tenants and of each may come from different levels."""
    of_all, of_tenant = finer(step_s, ""), finer(step_s, "any")
    if of_all == of_tenant:
        return Rollup.objects.filter(step_s=of_all)
    wanted = Q(step_s=of_all, tenant="")
    if of_tenant is not None:
        wanted |= Q(step_s=of_tenant, tenant__gt="")
    return Rollup.objects.filter(wanted)


def _next(step_s: int, span_end: datetime, end: datetime) -> datetime:
    """Where the next span begins that has rows, `end` at most: nobody walks through a quiet week minute by minute."""
    ahead = _sources(step_s).filter(at__gte=span_end, at__lt=end)
    first = ahead.order_by("at").values_list("at", flat=True).first()
    return end if first is None else floor(first, step_s)


def _move(step_s: int, upto: datetime, row: int) -> None:
    RollupLevel.objects.update_or_create(
        step_s=step_s,
        defaults={"upto": upto, "row": row},
        create_defaults={"upto": upto, "row": row, "kept_from": EPOCH},
    )


def expire() -> int:
    """Delete what is older than it is kept, for a bounded time. Returns how many rows went.

    What may go is said first and deleted at the next look: a question that has just read the marks still finds it.
    """
    began, gone = time.monotonic(), 0
    while part := _delete_part():
        gone += part
        if time.monotonic() - began > _LOOK_S:
            return gone
    _say_what_may_go()
    return gone


def _delete_part() -> int:
    old = Q()
    for step_s, mark in rollup_rows.marks().items():
        if mark.kept_from > EPOCH:
            old |= Q(step_s=step_s, at__lt=mark.kept_from)
    if not old:
        return 0
    ids = list(Rollup.objects.filter(old).order_by().values_list("id", flat=True)[: rollup_rows.ROWS])
    return Rollup.objects.filter(id__in=ids).delete()[0] if ids else 0


def _say_what_may_go() -> None:
    marks, now = rollup_rows.marks(), clock.now()
    age_s = 0.0
    for age, kept_s in zip(AGES, _kept_s(), strict=True):
        age_s = max(age_s, kept_s)  # nothing finer is kept for longer
        begins = kept_from(age, marks, now - timedelta(seconds=age_s))
        for step_s in age:
            if begins > marks[step_s].kept_from:
                RollupLevel.objects.update_or_create(
                    step_s=step_s,
                    defaults={"kept_from": begins},
                    create_defaults={"kept_from": begins, "upto": EPOCH},
                )


def _kept_s() -> tuple[float, float, float]:
    return conf().ROLLUP_MINUTES_S, conf().ROLLUP_HOURS_S, conf().ROLLUP_DAYS_S
