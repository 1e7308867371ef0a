"""Alerts' rules and what they are about, made by tests, and a receiver of webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from queue_app import alert_rules, alerts_told, clock, enqueue, rollups
from queue_app.models import Alert, AlertRule, Job, Lease, Notice, Rollup, Silence

from .dead_letters import PAYLOAD
from .receivers import Receiver, receiver

WHO: dict[str, Any] = {"actor": "somebody", "source": "cli"}
QUEUE = "email_queue"


def forget() -> None:
    """The rules that a migration made are no test's."""
    for model in (Notice, Silence, Alert, AlertRule, Rollup):
        model.objects.all().delete()
    Lease.objects.filter(name=alerts_told.NAME).delete()


@contextmanager
def hooked(settings: Any) -> Iterator[Receiver]:
    """One webhook, which has time to answer; a test in which it does not takes that away."""
    with receiver() as one:
        conf(settings, ALERT_WEBHOOKS=(one.url,), ALERT_SECRET="s3cret", ALERT_TIMEOUT_S=20.0)
        yield one


def conf(settings: Any, **changes: Any) -> None:
    settings.BRAIN = settings.BRAIN | {"QUEUE": settings.BRAIN["QUEUE"] | changes}


def rule(condition: str = "latency", name: str = "", **fields: Any) -> AlertRule:
    given = {"threshold": 60, "for_s": 0, "clear_s": 0, "repeat_s": 0} | fields
    return alert_rules.create(name or condition, condition=condition, **given, **WHO)


def late_job(queue: str = QUEUE, waited_s: float = 120) -> Job:
    job = enqueue(QUEUE, PAYLOAD, queue=queue)
    Job.objects.filter(id=job.id).update(created_at=clock.now() - timedelta(seconds=waited_s))
    return job


def later(seconds: float) -> Any:
    return clock.now() + timedelta(seconds=seconds)


def standing() -> list[tuple[str, str, str]]:
    return [*Alert.objects.order_by("id").values_list("name", "queue", "state")]


def make_due() -> None:
    Notice.objects.filter(next_at__isnull=False).update(next_at=clock.now(), taken_until=None)


def rolled_up(at: Any, **counts: int) -> None:
    Rollup.objects.create(step_s=60, at=rollups.floor(at, 60), queue=QUEUE, name="send", **counts)
