"""The look at the alerts' rules: what is seen → each alert a step on → its row and its notices in one transaction.

Any number of processes may look at once: the row of the lease is locked first, so that one look follows the other, and
an older one changes nothing. What is to be told is left in the outbox; notices.py sends it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.db import transaction

from . import alert_sight, alerts, clock, leases, notice_channels, notices, silences
from .alerts import Condition, Kind, Rule, Standing, State
from .alerts_told import NAME
from .conf import conf
from .duty import Duty
from .models import Alert, AlertRule, Lease

log = structlog.get_logger(__name__)

_PRUNE_S = 60.0
_PRUNED = 1000  # rows in one statement
_SET_BACK = timedelta(minutes=5)  # no look takes so long: the database's clock was set back since a later one
_STEPPED = (
    "state",
    "since",
    "value",
    "words",
    "fired_at",
    "calm_since",
    "resolved_at",
    "told_at",
    "notices",
    "open_key",
)


class Watch:
    """One process's part in looking and telling; the process that leads does both, each on a thread of its own."""

    def __init__(self, holder: Callable[[], UUID]) -> None:
        self._leadership = leases.Leadership(NAME, holder, lease_s=lambda: 2 * conf().ALERT_LOOK_S)
        self._leads = False
        self._pruned_at = time.monotonic()
        self._telling = Duty("notices", self.tell, conf().ALERT_LOOK_S, is_rare=True)
        self.duties = [Duty("alerts", self.look, conf().ALERT_LOOK_S, is_rare=True), self._telling]

    def start(self) -> None:
        for duty in self.duties:
            duty.start()

    def look(self) -> float:
        """Seconds until the next look."""
        if not conf().ALERTS:
            return conf().ALERT_LOOK_S
        self._leads = self._leadership.holds()
        if self._leads:
            if look():
                self._telling.hurry()
            if time.monotonic() - self._pruned_at > _PRUNE_S:
                self._pruned_at = time.monotonic()
                prune()
        return conf().ALERT_LOOK_S

    def tell(self) -> float:
        """Seconds until the next time. It may take as long as the receivers do."""
        return notices.send_due() if self._leads else conf().ALERT_LOOK_S

    def end(self) -> None:
        """What `start` has started ends, and another may lead."""
        for duty in self.duties:
            duty.stop()
        self.stop()

    def stop(self) -> None:
        """Let another lead."""
        self._leads = False
        self._leadership.give_up()


@dataclass(slots=True)
class _Change:
    row: Alert
    kind: Kind | None


def look(now: datetime | None = None) -> int:
    """Look at every rule once. How many alerts were to be told of. A DatabaseError is the caller's.

    now: the database's time by default.
    """
    now = now or clock.now()
    rules = [rule_of(row) for row in AlertRule.objects.filter(enabled=True)]
    sight = alert_sight.see(rules, now)
    if not Lease.objects.filter(name=NAME).exists():
        # Not in the transaction: on MySQL who loses the race for the insert would lock the row halfway.
        Lease.objects.get_or_create(name=NAME, defaults={"until": now})
    with transaction.atomic():
        if not _lock(now):
            return 0
        changes = list(_changes(rules, sight, now))
        telling = [change for change in changes if change.kind is not None]
        channels = notice_channels.channels() if telling else ()
        for change in telling if channels else ():
            _note(change, now)
        _store([change.row for change in changes])
        if channels:
            notices.write(channels, [(change.kind, change.row) for change in telling if change.kind], now)
    return len(telling)


def rule_of(row: AlertRule) -> Rule:
    return Rule(
        id=row.pk,
        name=row.name,
        condition=Condition(row.condition),
        threshold=row.threshold,
        queue=row.queue,
        window_s=row.window_s,
        at_least=row.at_least,
        for_s=row.for_s,
        clear_s=row.clear_s,
        repeat_s=row.repeat_s,
    )


def prune() -> int:
    """Delete what is over for longer than ALERT_RETENTION_S, a portion of it. How many alerts."""
    before = clock.now() - timedelta(seconds=conf().ALERT_RETENTION_S)
    # Ids first: MySQL takes no LIMIT in a subquery of a DELETE.
    old = list(Alert.objects.filter(resolved_at__lt=before).order_by().values_list("id", flat=True)[:_PRUNED])
    notices.prune(before)
    silences.prune(before)
    return Alert.objects.filter(id__in=old).delete()[0] if old else 0


def _lock(now: datetime) -> bool:
    """The first statement of its transaction: others wait for its end. False when somebody has looked later than `now`."""
    row = Lease.objects.select_for_update().get(name=NAME)
    if row.position and now < datetime.fromisoformat(row.position) < now + _SET_BACK:
        return False
    Lease.objects.filter(name=NAME).update(position=now.isoformat())
    return True


def _changes(rules: Sequence[Rule], sight: alerts.Sight, now: datetime) -> Iterable[_Change]:
    """In the transaction. Rows without an id are new; those without a key and a state of PENDING are to be deleted."""
    left = list(Alert.objects.filter(open_key__isnull=False))
    quiet = silences.standing(now)
    for rule in rules:
        mine = {row.queue: row for row in left if (row.rule_id, row.condition) == (rule.id, rule.condition)}
        left = [row for row in left if mine.get(row.queue) is not row]
        values = alerts.values(rule, rules, sight, now)
        if values is None:
            continue
        for queue in sorted({*values, *mine}):
            row, is_silenced = mine.get(queue), silences.covers(quiet, rule.id, queue)
            before = None if row is None else _standing(row)
            step = alerts.step(rule, before, values.get(queue), now, is_silenced=is_silenced)
            if row is not None or step.standing is not None:
                yield _stepped(row or _new(rule, queue), step, now, rule, schedule=sight.overdue)
    for row in left:  # their rules are gone, off, or about something else now
        yield _stepped(row, alerts.end(_standing(row)), now)


def _stepped(
    row: Alert, step: alerts.Step, now: datetime, rule: Rule | None = None, *, schedule: str = ""
) -> _Change:
    standing = step.standing
    if standing is None:
        row.open_key = None
        return _Change(row, None)
    was = row.state
    for field in ("state", "since", "value", "fired_at", "calm_since", "told_at"):
        setattr(row, field, getattr(standing, field))
    if standing.state == State.RESOLVED:
        row.open_key, row.resolved_at = None, now
    elif rule is not None and standing.calm_since is None:  # else it goes on to say what fired
        row.words = alerts.words(rule, row.queue, standing.value, schedule=schedule)[:300]
    if standing.state != was and standing.state != State.PENDING:
        _report(row)
    return _Change(row, step.kind)


def _report(row: Alert) -> None:
    names = {"rule": row.name, "queue": row.queue, "value": row.value}
    if row.state == State.FIRING:
        log.warning("alert_firing", **names)
    else:
        log.info("alert_resolved", **names)


def _note(change: _Change, now: datetime) -> None:
    row = change.row
    row.notices += 1
    if change.kind != Kind.RESOLVED:
        row.told_at = alerts.told(_standing(row), now).told_at


def _store(rows: Sequence[Alert]) -> None:
    gone = {row.pk for row in rows if row.pk and row.state == State.PENDING and row.open_key is None}
    if gone:
        Alert.objects.filter(pk__in=gone).delete()
    changed = [row for row in rows if row.pk and row.pk not in gone]
    if changed:
        Alert.objects.bulk_update(changed, [*_STEPPED], batch_size=50)
    for row in rows:
        if not row.pk:  # one by one: a notice names its id, which MySQL does not give back of many
            row.save(force_insert=True)


def _new(rule: Rule, queue: str) -> Alert:
    key = hashlib.sha256(f"{rule.id}:{queue}".encode()).hexdigest()
    return Alert(
        rule_id=rule.id, name=rule.name, condition=rule.condition.value, queue=queue, state="", open_key=key
    )


def _standing(row: Alert) -> Standing:
    return Standing(State(row.state), row.since, row.value, row.fired_at, row.calm_since, row.told_at)
