"""The work of the queue drill: take a moment, then leave a line that survives the worker."""

from __future__ import annotations

import os
import time
from typing import Any

from queue_app import task
from queue_app.runs import Run

QUEUE = "drill"
WORK_S = 0.03


@task(queue=QUEUE, name="drills.record")
def record(payload: dict[str, Any], job: Run) -> None:
    """One O_APPEND write of less than a page: no line is torn, whatever happens to the process."""
    time.sleep(WORK_S)
    descriptor = os.open(payload["effects"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{job.id} {job.fence} {time.monotonic():.4f}\n".encode())
    finally:
        os.close(descriptor)
