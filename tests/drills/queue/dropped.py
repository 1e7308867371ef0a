"""A task that only the old version of the code knows."""

from __future__ import annotations

from typing import Any

from queue_app import task
from queue_app.runs import Run

from . import jobs


@task(queue=jobs.QUEUE, name="drills.dropped")
def dropped(payload: dict[str, Any], job: Run) -> None:
    jobs.append(payload["file"], str(job.id), job.fence)
