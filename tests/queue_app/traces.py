"""Jobs that leave a trace in a file, and where they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from queue_app import enqueue
from queue_app.models import Job

from .jobs_app import tasks


def trace(file: Path, number: int = 1, *, queue: str | None = None, **payload: Any) -> Job:
    return enqueue(tasks.trace, {"file": str(file), "number": number, **payload}, queue=queue)


def state(job: Job) -> str:
    return Job.objects.values_list("state", flat=True).get(id=job.id)


def open_jobs() -> bool:
    return Job.objects.filter(state__in=["PENDING", "PROCESSING", "FAILED"]).exists()
