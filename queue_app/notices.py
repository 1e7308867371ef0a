"""The outbox of alerts: a notice is a row of the look that wrote it, and is sent outside of it until its channel took it.

Every channel gets its notices in their order, at least once: a sender that dies between the sending and the note of it
leaves it to another, and the id, which is the same then, tells the receiver.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import structlog
from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db import transaction
from django.db.models import F, Q

from foundation import audit

from . import alerts, clock, webhook
from .alerts import Kind
from .conf import conf
from .models import Alert, Notice
from .uuid7 import uuid7

log = structlog.get_logger(__name__)

MAIL = "mail"
TAKEN_S = 60.0  # a sender that has not come back by then is taken for dead
_LONGEST_ERROR = 200
_LOOKED_AT = 500  # unsent notices at once
_REST_S = 5.0  # between two looks for notices of others, as of a command that was killed


class NotSent(Exception):
    """The channel did not take it. The message holds no secret."""


class Channel(NamedTuple):
    """url: of a webhook; "" of the mail channel."""

    name: str
    url: str = ""


def channels() -> tuple[Channel, ...]:
    found = [Channel(alerts.channel_name(url), url) for url in dict.fromkeys(conf().ALERT_WEBHOOKS)]
    return (*found, *([Channel(MAIL)] if conf().ALERT_MAIL else []))


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
        _send(known[name], row)
    except NotSent as error:
        Notice.objects.filter(id=id).update(last_error=str(error))
        raise
    Notice.objects.filter(id=id).update(sent_at=clock.now())
    return row


def send_due(*, for_s: float = 30.0) -> float:
    """Send what is due, for about so long. Seconds until something is due again, at most some."""
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        first = _first_of_each()
        due = [row for row in first if _is_due(row)]
        if not due:
            return _wait_s(first)
        for row in due:
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


def prune(before: datetime) -> int:
    return Notice.objects.filter(next_at=None, created_at__lt=before).delete()[0]


def _first_of_each() -> list[Notice]:
    """The oldest unsent one of each channel; those behind it wait for it."""
    unsent = Notice.objects.filter(next_at__isnull=False).order_by("id").defer("body")[:_LOOKED_AT]
    first: dict[str, Notice] = {}
    for row in unsent:
        first.setdefault(row.channel, row)
    return list(first.values())


def _is_due(row: Notice) -> bool:
    now = clock.now()
    assert row.next_at is not None  # noqa: S101
    return row.next_at <= now and (row.taken_until is None or row.taken_until <= now)


def _wait_s(first: Sequence[Notice]) -> float:
    now = clock.now()
    moments = [max(filter(None, (row.next_at, row.taken_until))) for row in first]
    soonest = min(((moment - now).total_seconds() for moment in moments), default=_REST_S)
    return min(max(soonest, 0.05), _REST_S)


def _attempt(row: Notice) -> None:
    """Take it, send it, note what came of it: three steps, so that nothing is locked while somebody else's server thinks."""
    if not _take(row):
        return
    row = Notice.objects.get(id=row.id)
    try:
        channel = next((one for one in channels() if one.name == row.channel), None)
        if channel is None:
            raise NotSent("there is no such channel any more")
        _send(channel, row)
    except NotSent as error:
        _note_failure(row, str(error), is_final=channel is None)
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


def _note_failure(row: Notice, error: str, *, is_final: bool) -> None:
    wait_s = None if is_final else alerts.retry_s(row.attempts)
    next_at = None if wait_s is None else clock.now() + timedelta(seconds=wait_s)
    Notice.objects.filter(id=row.id).update(
        next_at=next_at, taken_until=None, last_error=error[:_LONGEST_ERROR]
    )
    names = {"notice": str(row.id), "channel": row.channel, "attempts": row.attempts, "reason": error}
    if next_at is None:
        log.error("notice_given_up", **names)
    else:
        log.warning("notice_not_sent", **names)


def _send(channel: Channel, row: Notice) -> None:
    """Raises NotSent, whatever the way there raises: any failure is noted, tried again, and given up in the end."""
    try:
        if channel.url:
            _post(channel.url, row)
        else:
            _mail(row)
    except NotSent:
        raise
    except Exception as error:  # smtplib's errors, and those of a mail backend that somebody else wrote
        raise NotSent(f"{'webhook' if channel.url else 'mail'}: {type(error).__name__}") from error


def _post(url: str, row: Notice) -> None:
    body = json.dumps(row.body, ensure_ascii=False).encode()
    timestamp = int(clock.now().timestamp())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "brain-alerts/1",
        "X-Brain-Notice": str(row.id),
        "X-Brain-Timestamp": str(timestamp),
    }
    if conf().ALERT_SECRET:
        headers["X-Brain-Signature"] = alerts.signature(conf().ALERT_SECRET, timestamp, body)
    try:
        status = webhook.post(url, body, headers, timeout_s=conf().ALERT_TIMEOUT_S)
    except webhook.Failed as error:
        raise NotSent(str(error)) from error
    if not 200 <= status < 300:
        raise NotSent(f"HTTP {status}{', and redirects are not followed' if 300 <= status < 400 else ''}")


def _mail(row: Notice) -> None:
    message = EmailMessage(
        subject=alerts.title(row.body),
        body=alerts.letter(row.body),
        from_email=settings.DEFAULT_FROM_EMAIL,
        to=list(conf().ALERT_MAIL),
        headers={"Message-ID": f"<{row.id}@brain>", "X-Brain-Notice": str(row.id)},
    )
    message.connection = get_connection(timeout=conf().ALERT_TIMEOUT_S)
    message.send()
