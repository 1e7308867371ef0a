"""The outbox of alerts: a notice is a row of the look that wrote it, and is sent outside of it until its channel took it.

A channel gets what is told of one alert in its order, at least once: a sender that dies between the sending and the note
of it leaves it to another, and the id, which is the same then, tells the receiver. Of other alerts nothing waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import structlog
from django.db import transaction
from django.db.models import F, Q, QuerySet

from foundation import audit

from . import alerts, clock, notice_channels, notice_delivery
from .alerts import Kind
from .models import Alert, Notice
from .notice_channels import Channel, NotSent, channels
from .uuid7 import uuid7

log = structlog.get_logger(__name__)

# Nobody tries it any more, and its channel has not taken it; a test notice is tried once and told to whoever asked.
GIVEN_UP = Q(next_at=None, sent_at=None) & ~Q(body__status="test")
TAKEN_S = 60.0  # a sender that has not come back by then is taken for dead
_LONGEST_ERROR = 200
_LOOKED_AT = 500  # unsent notices at once
_REST_S = 5.0  # between two looks for notices of others, as of a command that was killed


def write(to: Sequence[Channel], told: Sequence[tuple[Kind, Alert]], now: datetime) -> list[Notice]:
    """One notice to each channel, in the caller's transaction."""
    items = [shown(row, kind) for kind, row in told]
    rows = []
    for channel in to:
        id = uuid7()
        body = alerts.document(str(id), now, items)
        rows.append(Notice(id=id, channel=channel.name, body=body, created_at=now, next_at=now))
    return Notice.objects.bulk_create(rows)


def shown(row: Alert, kind: Kind) -> dict[str, Any]:
    """An alert as a notice tells it."""
    return {
        "id": row.pk,
        "rule": row.name,
        "condition": row.condition,
        "queue": row.queue,
        "kind": str(kind),
        "words": row.words,
        "value": row.value,
        "since": row.since.isoformat(),
        "fired_at": row.fired_at and row.fired_at.isoformat(),
        "resolved_at": row.resolved_at and row.resolved_at.isoformat(),
    }


def test(name: str, *, actor: Any, source: str, **trace: Any) -> Notice:
    """Send a test notice to the channel of this name, now and once. Raises ValueError for an unknown one, or NotSent."""
    known = {channel.name: channel for channel in channels()}
    if name not in known:
        hint = f"one of {', '.join(known)}" if known else "set BRAIN_ALERT_WEBHOOKS or BRAIN_ALERT_MAIL"
        raise ValueError(f"no channel is called {name!r}: {hint}")
    now, id = clock.now(), uuid7()
    body = alerts.document(str(id), now, []) | {"status": "test", "text": "TEST: this channel works"}
    with transaction.atomic():
        row = Notice.objects.create(id=id, channel=name, body=body, created_at=now, attempts=1)
        audit.record(
            actor=actor, action="notice.test", target=row, after={"channel": name}, source=source, **trace
        )
    try:
        notice_channels.send(name, row)
    except NotSent as error:
        Notice.objects.filter(id=id).update(last_error=str(error))
        raise
    Notice.objects.filter(id=id).update(sent_at=clock.now())
    return row


def send_due(*, for_s: float = 30.0) -> float:
    """Send what is due, for about so long. Seconds until something is due again, at most some."""
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        in_turn = _in_turn()
        due = [row for row in in_turn if _is_due(row)]
        if not due:
            return _wait_s(in_turn)
        # One of each channel: a receiver that hangs costs the others one time-out, however much waits for it.
        due.sort(key=_waits_since, reverse=True)
        for row in {row.channel: row for row in due}.values():
            _attempt(row)
    return 0.0


def failing(older_than_s: float) -> list[tuple[str, str]]:
    """The channels of today whose last notice of that age was not taken, each with its last error."""
    before = clock.now() - timedelta(seconds=older_than_s)
    found = []
    for channel in channels():
        last = Notice.objects.filter(channel=channel.name, created_at__lt=before).order_by("-id").first()
        if last is not None and last.sent_at is None:
            found.append((channel.name, last.last_error or "it was not tried"))
    return found


class GivenUp(NamedTuple):
    """error: of the last of so many."""

    channel: str
    number: int
    error: str


def given_up(within_s: float = 86_400.0) -> list[GivenUp]:
    """By channel, how many of this age were not taken and are not tried any more."""
    rows = Notice.objects.filter(GIVEN_UP, created_at__gte=clock.now() - timedelta(seconds=within_s))
    found: dict[str, list[str]] = {}
    for channel, error in rows.order_by("id").values_list("channel", "last_error"):
        found.setdefault(channel, []).append(error)
    return [GivenUp(channel, len(errors), errors[-1]) for channel, errors in sorted(found.items())]


def send_again(rows: QuerySet[Notice], *, actor: Any, source: str, **trace: Any) -> int:
    """Try those of them anew that were given up. How many.

    Not where their channel has been told something later of the same alert: it would believe that what is over fires.
    """
    now = clock.now()
    with transaction.atomic():
        again = [
            row for row in rows.filter(GIVEN_UP).order_by("id").select_for_update() if not _is_outdated(row)
        ]
        for row in again:
            before = {"attempts": row.attempts, "last_error": row.last_error}
            audit.record(
                actor=actor, action="notice.resend", target=row, before=before, source=source, **trace
            )
        Notice.objects.filter(id__in=[row.id for row in again]).update(next_at=now, attempts=0)
    return len(again)


def _is_outdated(row: Notice) -> bool:
    later = Notice.objects.filter(channel=row.channel, id__gt=row.id, sent_at__isnull=False)
    return any(not _alerts_of(row).isdisjoint(_alerts_of(one)) for one in later.iterator())


def prune(before: datetime) -> int:
    return Notice.objects.filter(next_at=None, created_at__lt=before).delete()[0]


def _in_turn() -> list[Notice]:
    """Of each channel what may go, the oldest first."""
    unsent = Notice.objects.filter(next_at__isnull=False)
    found = []
    for name in unsent.order_by("channel").values_list("channel", flat=True).distinct():
        rows = unsent.filter(channel=name).order_by("id")[:_LOOKED_AT]
        found += notice_delivery.in_turn((row, _alerts_of(row)) for row in rows)
    return found


def _alerts_of(row: Notice) -> set[int]:
    """Those that it names: of the others of a storm it says no more than their number."""
    return {one["id"] for one in row.body["alerts"]}


def _waits_since(row: Notice) -> datetime:
    assert row.next_at is not None  # noqa: S101
    return row.next_at


def _is_due(row: Notice) -> bool:
    now = clock.now()
    return _waits_since(row) <= now and (row.taken_until is None or row.taken_until <= now)


def _wait_s(in_turn: Sequence[Notice]) -> float:
    now = clock.now()
    moments = [max(filter(None, (row.next_at, row.taken_until))) for row in in_turn]
    soonest = min(((moment - now).total_seconds() for moment in moments), default=_REST_S)
    return min(max(soonest, 0.05), _REST_S)


def _attempt(row: Notice) -> None:
    """Take it, send it, note what came of it: three steps, so that nothing is locked while somebody else's server thinks."""
    if not _take(row):
        return
    row = Notice.objects.get(id=row.id)
    try:
        notice_channels.send(row.channel, row)
    except NotSent as error:
        _note_failure(row, error)
        return
    Notice.objects.filter(id=row.id).update(
        sent_at=clock.now(), next_at=None, taken_until=None, last_error=""
    )
    log.info("notice_sent", notice=str(row.id), channel=row.channel, attempts=row.attempts)


def _take(row: Notice) -> bool:
    now = clock.now()
    free = Q(taken_until=None) | Q(taken_until__lte=now)
    mine = Notice.objects.filter(free, id=row.id, next_at__lte=now)
    return bool(mine.update(taken_until=now + timedelta(seconds=TAKEN_S), attempts=F("attempts") + 1))


def _note_failure(row: Notice, error: NotSent) -> None:
    wait_s = None if error.is_final else notice_delivery.retry_s(row.attempts, error.asked_s)
    next_at = None if wait_s is None else clock.now() + timedelta(seconds=wait_s)
    told = str(error)[:_LONGEST_ERROR]
    Notice.objects.filter(id=row.id).update(next_at=next_at, taken_until=None, last_error=told)
    names = {"notice": str(row.id), "channel": row.channel, "attempts": row.attempts, "reason": told}
    if next_at is None:
        log.error("notice_given_up", **names)
    else:
        log.warning("notice_not_sent", **names)
