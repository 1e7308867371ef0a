"""A row of each model that has a page in the admin, in the state in which most can be done to it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.contrib.auth.models import Group
from django.db.models import Model
from django.utils import timezone

from foundation import audit
from foundation.models import AuditEntry
from gateway.models import Configuration, Revision
from orm_app.models import User
from queue_app import queues, rollups, schedules, workers
from queue_app.histograms import bucket
from queue_app.models import (
    Alert,
    AlertRule,
    BulkAction,
    Firing,
    Notice,
    Rollup,
    Silence,
    Tenant,
    Workflow,
)
from queue_app.uuid7 import uuid7
from tests.gateway.admin_pages import configuration
from tests.queue_app.dead_letters import job

WHO: dict[str, Any] = {"actor": "somebody", "source": "cli"}


def one_of_each() -> dict[type[Model], Model]:
    """Model → row, of all that the admin shows."""
    found = [*configuration().values(), *_watched(), *_worked(), *_people()]
    rows: dict[type[Model], Model] = {type(row): row for row in found}
    rows[Configuration], rows[Revision] = Configuration.objects.get(), Revision.objects.first()  # type: ignore[assignment]
    assert set(rows) == set(admin.site._registry), "a page of the admin has no row here"
    return rows


def _watched() -> list[Model]:
    now = timezone.now()
    rule = AlertRule.objects.create(name="slow mail", condition="latency", threshold=60)
    told = {
        "name": rule.name,
        "condition": "latency",
        "queue": "email_queue",
        "state": "firing",
        "value": 400.0,
    }
    return [
        rule,
        Alert.objects.create(rule=rule, **told, since=now, fired_at=now, open_key="k"),
        Silence.objects.create(rule=rule, until=now + timedelta(hours=1), reason="known", actor="ann"),
        Notice.objects.create(id=uuid7(), channel="webhook 1", body={"alert": rule.name}, next_at=now),
    ]


def _worked() -> list[Model]:
    now = timezone.now()
    dead = job()
    queue = queues.create_queue("email_queue")
    schedule = schedules.create("hourly", task="email_queue", interval_s=3600, **WHO)
    lately = rollups.floor(now, 60)
    seen = {str(bucket(0.05)): 5, str(bucket(2.0)): 1}
    counts = {"started": 6, "completed": 5, "failed": 1, "wait": seen, "run": seen}
    return [
        dead,
        queue,
        schedule,
        Firing.objects.create(schedule=schedule, due_at=now, at=now, outcome="fired", job=dead.pk),
        Tenant.objects.create(queue=queue, name="acme"),
        Workflow.objects.create(id=uuid7(), kind="chain", name="import", total=3),
        BulkAction.objects.create(action="replay", wanted=10, actor="ann", counted_to=now),
        Rollup.objects.create(step_s=60, at=lately, queue="email_queue", name="send", **counts),
        workers.register(pool="threads", concurrency=2, queues=["email_queue"]),
    ]


def _people() -> list[Model]:
    user = User.objects.create_user("bob", "bob@example.com", is_staff=True)
    audit.record(actor="up", action="user.create", target=user, after={"username": "bob"}, source="cli")
    return [user, Group.objects.get(name="viewer"), AuditEntry.objects.latest("pk")]
