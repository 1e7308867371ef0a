"""System checks of the queue: settings that fit together, and a broker that passes on what the ledger needs."""

from __future__ import annotations

from typing import Any

from celery import current_app
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import DatabaseError

from foundation import url_guard

from . import queues, registry
from .conf import conf
from .models import Delivery, Queue

_DOCS = "See docs/checks.md#queue-{}."
_ANYWHERE = "1.1.1.1"  # some public address: what a name stands for is checked when it is connected to


@register("queue")
def conf_fits_together(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if conf().BACKOFF_BASE_S > conf().BACKOFF_MAX_S:
        found.append(
            Error(
                "BRAIN['QUEUE']: BACKOFF_BASE_S is larger than BACKOFF_MAX_S.",
                hint="The first wait cannot be longer than the longest. " + _DOCS.format("e001"),
                id="queue.E001",
            )
        )
    if conf().REPUBLISH_S < conf().RECONCILE_S:
        found.append(
            Error(
                "BRAIN['QUEUE']: REPUBLISH_S is smaller than RECONCILE_S.",
                hint="Every look would send every waiting job's message again. " + _DOCS.format("e002"),
                id="queue.E002",
            )
        )
    if conf().SCHEDULE_GRACE_S <= 2 * conf().LEASE_S:
        found.append(
            Error(
                "BRAIN['QUEUE']: SCHEDULE_GRACE_S is not more than twice LEASE_S.",
                hint="After kill -9 of the worker that leads, another one would take its schedules' moments for missed. "
                + _DOCS.format("e007"),
                id="queue.E007",
            )
        )
    return found


@register("queue")
def alerts_can_be_told(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A webhook is named by its place: its address is a secret at many receivers."""
    found: list[CheckMessage] = []
    for number, url in enumerate(conf().ALERT_WEBHOOKS, 1):
        try:
            url_guard.check(url, resolve=lambda host, port: [_ANYWHERE])
        except url_guard.Refused as error:
            found.append(
                Error(
                    f"BRAIN['QUEUE']['ALERT_WEBHOOKS']: number {number} cannot be told: {error}.",
                    hint="Mend BRAIN_ALERT_WEBHOOKS. " + _DOCS.format("e012"),
                    id="queue.E012",
                )
            )
    for address in conf().ALERT_MAIL:
        try:
            validate_email(address)
        except ValidationError:
            found.append(
                Error(
                    f"BRAIN['QUEUE']['ALERT_MAIL']: {address!r} is not an address.",
                    hint="Mend BRAIN_ALERT_MAIL. " + _DOCS.format("e013"),
                    id="queue.E013",
                )
            )
    return found


@register("queue")
def queue_names_are_valid(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return [
        Error(
            f"{name!r} cannot name a queue.",
            hint="Use up to 100 letters, digits, dots, dashes and underscores, and no ending like .high or .dead. "
            + _DOCS.format("e003"),
            obj=next((known for known in registry.registered() if known.queue == name), None),
            id="queue.E003",
        )
        for name in sorted(queues.declared())
        if not queues.is_name(name)
    ]


@register("queue")
def celery_is_not_eager(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if not current_app.conf.task_always_eager:
        return []
    return [
        Error(
            "CELERY_TASK_ALWAYS_EAGER is on: messages never reach the broker, so no worker ever runs a job.",
            hint="Remove it; BRAIN['QUEUE']['EAGER'] runs jobs in this process, and keeps their rows. "
            + _DOCS.format("e004"),
            id="queue.E004",
        )
    ]


@register(Tags.security, deploy=True)
def eager_is_off(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if not conf().EAGER:
        return []
    return [
        Error(
            "BRAIN['QUEUE']['EAGER'] is on: requests wait for the jobs that they enqueue, and delayed ones never run.",
            hint="Remove it; it is for development and tests. " + _DOCS.format("e011"),
            id="queue.E011",
        )
    ]


@register(Tags.security, deploy=True)
def broker_is_shared(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if not current_app.conf.broker_url.startswith("memory:"):
        return []
    return [
        Warning(
            "The broker is kombu's in-memory one: a worker in another process hears nothing.",
            hint="Set BROKER_URL. " + _DOCS.format("w001"),
            id="queue.W001",
        )
    ]


@register(Tags.database)
def limits_meet_the_ledger_alone(
    app_configs: Any, databases: Any = None, **kwargs: Any
) -> list[CheckMessage]:
    """Runs with `check --database default` only, as it reads rows."""
    if not databases:
        return []
    try:
        rows = list(Queue.objects.exclude(delivery=Delivery.LEDGER).order_by("name"))
    except DatabaseError:  # not migrated yet
        return []
    return [
        Warning(
            f"Queue {queue.name} has limits, and not ledger delivery: Celery's .delay() goes past them.",
            hint="Set its delivery to ledger. " + _DOCS.format("w002"),
            obj=queue,
            id="queue.W002",
        )
        for queue in rows
        if any(getattr(queue, field) for field in queues.LIMITS)
    ]
