"""Silences: until when nobody is told of what fires, and why."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import transaction
from django.utils import timezone

from foundation import audit

from . import clock, queues
from .alerts import OF_NO_QUEUE
from .models import Alert, AlertRule, Silence

LONGEST_S = 366 * 86_400
_LONGEST_REASON = 200


class BadSilence(ValueError):
    """field: what the message is about."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Over(ValueError):
    """It cannot be silenced, or the silence ended, any more."""


class Quiet(NamedTuple):
    """rule: None for every rule; queue: "" for every queue."""

    rule: int | None
    queue: str


def standing(now: datetime) -> frozenset[Quiet]:
    return frozenset(
        Quiet(*found) for found in Silence.objects.filter(until__gt=now).values_list("rule", "queue")
    )


def covers(quiet: Collection[Quiet], rule: int, queue: str) -> bool:
    return any(one.rule in (None, rule) and one.queue in ("", queue) for one in quiet)


def covering(alert: Alert) -> list[Silence]:
    """Those that keep quiet about it now."""
    rows = Silence.objects.filter(until__gt=clock.now())
    return [row for row in rows if row.rule_id in (None, alert.rule_id) and row.queue in ("", alert.queue)]


def silence(
    *,
    until: datetime,
    reason: str,
    rule: AlertRule | None = None,
    queue: str = "",
    actor: Any,
    source: str,
    **trace: Any,
) -> Silence:
    """Tell nobody of what `rule` (None: any) says of `queue` ("": any) until then. Raises BadSilence."""
    _check_queue(queue, rule)
    return _store(until, reason, rule, queue, actor=actor, source=source, **trace)


def _store(
    until: datetime, reason: str, rule: AlertRule | None, queue: str, *, actor: Any, source: str, **trace: Any
) -> Silence:
    now = clock.now()
    _check(until, reason, now)
    with transaction.atomic():
        row = Silence.objects.create(
            rule=rule,
            queue=queue,
            until=until,
            reason=reason.strip(),
            actor=("system" if actor is None else str(actor))[:150],
            created_at=now,
        )
        after = {"rule": rule and rule.name, "queue": queue, "until": until, "reason": row.reason}
        audit.record(actor=actor, action="silence.create", target=row, after=after, source=source, **trace)
    return row


def silence_alert(alert: Alert, *, for_s: float, reason: str, **trace: Any) -> Silence:
    """The rule of this alert about its queue. Raises BadSilence, or Over when it is resolved."""
    if alert.open_key is None or alert.rule is None:
        raise Over(f"alert {alert.pk} is over")
    return _store(after(for_s), reason, alert.rule, alert.queue, **trace)


def after(for_s: float) -> datetime:
    """In so many seconds. Raises BadSilence."""
    if isinstance(for_s, bool) or not isinstance(for_s, int | float) or not 0 < for_s <= LONGEST_S:
        raise BadSilence("for_s", f"{for_s!r} is not a number of seconds up to 366 days")
    return clock.now() + timedelta(seconds=for_s)


def end(row: Silence, *, actor: Any, source: str, **trace: Any) -> Silence:
    """Whoever was not told is told now. Raises Over."""
    now = clock.now()
    with transaction.atomic():
        found = Silence.objects.select_for_update().filter(pk=row.pk, until__gt=now).first()
        if found is None:
            raise Over(f"silence {row.pk} is over")
        before, found.until = {"until": found.until}, now
        found.save(update_fields=["until"])
        audit.record(
            actor=actor,
            action="silence.end",
            target=found,
            before=before,
            after={"until": now},
            source=source,
            **trace,
        )
    return found


def prune(before: datetime) -> int:
    return Silence.objects.filter(until__lt=before).delete()[0]


def _check_queue(queue: str, rule: AlertRule | None) -> None:
    """Whoever mistypes one is not to believe that it is quiet now. Raises BadSilence."""
    if not isinstance(queue, str):
        raise BadSilence("queue", "is not the name of a queue")
    if queue and rule is not None and rule.condition in OF_NO_QUEUE:
        raise BadSilence("queue", f"the rule {rule.name!r} is about no queue")
    try:
        if queue:
            queues.find(queue)
    except ValueError as error:
        raise BadSilence("queue", str(error)) from error


def _check(until: datetime, reason: str, now: datetime) -> None:
    if timezone.is_naive(until):
        raise BadSilence("until", "needs a time zone")
    if not now < until <= now + timedelta(seconds=LONGEST_S + 60):
        raise BadSilence("until", "is not in the future, or more than 366 days away")
    if not isinstance(reason, str) or not 0 < len(reason.strip()) <= _LONGEST_REASON:
        raise BadSilence("reason", f"say why, in up to {_LONGEST_REASON} characters")
