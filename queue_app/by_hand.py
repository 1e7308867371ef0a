"""A job that somebody enqueues by the API, the admin or the command: as any other, and audited."""

from __future__ import annotations

from typing import Any, Unpack

from django.db import transaction

from foundation import audit

from . import intake
from .intake import Options
from .models import Job


def enqueue(
    target: str, payload: dict[str, Any], *, trace: dict[str, Any], **options: Unpack[Options]
) -> Job:
    """target: a task's name, or a queue's with one task. trace: as `audit.by`. Raises what `enqueue` raises.

    The audit entry tells task, queue and options, never the payload.
    """
    with transaction.atomic():
        job = intake.enqueue(target, payload, **options)
        told = {name: value for name, value in options.items() if value is not None}
        asked = {"task": job.name, "queue": job.queue, "is_duplicate": job.is_duplicate, **_plain(told)}
        audit.record(action="job.enqueue", target=job, after=asked, **trace)
    return job


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, int | float | list) else str(value) for name, value in told.items()
    }
