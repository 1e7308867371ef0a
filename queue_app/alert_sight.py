"""What the alerts' rules are about, read from where the rest of the platform reads it: the same few statements for any
number of queues and rules, and none for what no rule asks for.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

import structlog
from django.db.models import Count, Sum
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from . import firing, rollups, stats, tenants, workers
from .alerts import WINDOWED, Condition, Minute, Rule, Sight
from .broker import recorder
from .conditions import DEAD
from .conf import conf
from .models import Job, Queue, Rollup

log = structlog.get_logger(__name__)


def see(rules: Collection[Rule], now: datetime) -> Sight:
    """A DatabaseError is the caller's."""
    asked = {rule.condition for rule in rules}
    of_waits = asked & {Condition.LATENCY, Condition.NO_WORKER}
    windows = [rule.window_s for rule in rules if rule.condition in WINDOWED]
    late = firing.overdue() if Condition.SCHEDULE in asked else None
    return Sight(
        waited_s=_waited_s() if of_waits else None,
        consumed=frozenset(workers.slots()) if Condition.NO_WORKER in asked else None,
        minutes=_minutes(now - timedelta(seconds=max(windows) + 60)) if windows and conf().ROLLUPS else None,
        dead=_dead() if Condition.DEAD in asked else None,
        overdue_s=late and late.by_s,
        overdue=late.schedule if late else "",
        recorder_s=_recorder_s() if Condition.RECORDER in asked else None,
    )


def _waited_s() -> dict[str, float]:
    paused = set(Queue.objects.filter(paused=True).values_list("name", flat=True))
    waited = stats.oldest_due_s(but=tenants.paused_jobs())
    return {queue: waited_s for queue, waited_s in waited.items() if queue not in paused}


def _minutes(since: datetime) -> dict[str, list[Minute]]:
    counted = Rollup.objects.filter(step_s=rollups.MINUTE_S, tenant="", at__gt=since).order_by("queue", "at")
    found: dict[str, list[Minute]] = {}
    for row in counted.values("queue", "at").annotate(Sum("completed"), Sum("failed"), Sum("dead")):
        failed = row["failed__sum"] + row["dead__sum"]
        ended = row["completed__sum"] + failed
        found.setdefault(row["queue"], []).append(Minute(row["at"], ended, failed, row["dead__sum"]))
    return found


def _dead() -> dict[str, int]:
    counted = Job.objects.filter(DEAD).order_by().values_list("queue").annotate(Count("pk"))
    return dict(counted)


def _recorder_s() -> float | None:
    try:
        return recorder.standing().lag_s
    except (RedisError, OSError, KombuError) as error:  # whether it is behind cannot be said
        log.warning("alert_without_a_look", condition=str(Condition.RECORDER), error=type(error).__name__)
        return None
