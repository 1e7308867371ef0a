"""Dead letters as failed runs leave them, replayed by the command an operator would use; the times are the history's."""

from __future__ import annotations

import time
from typing import Any

from django.core.management import call_command
from django.db.models import Min
from django.utils import timezone

from queue_app.fingerprints import fingerprint
from queue_app.models import Job, JobEvent
from queue_app.states import OVER, Priority, State
from queue_app.uuid7 import uuid7

_STEPS = (State.PENDING, State.PROCESSING, State.DEAD_LETTER)
_ERROR = {"type": "Declined", "message": "the bank said no", "traceback": ""}
_AT_ONCE = 1000
_PATIENCE_S = 240.0


def replay(numbers: range, rate: float) -> dict[str, Any]:
    """When each was let go and when it was completed, in seconds."""
    for start in range(0, len(numbers), _AT_ONCE):
        _bury(numbers[start : start + _AT_ONCE])
    last = JobEvent.objects.values_list("id", flat=True).latest("id")
    call_command("queue", "replay", "--all", "--yes", "--rate", str(rate))
    deadline = time.monotonic() + _PATIENCE_S
    while Job.objects.exclude(state__in=set(OVER) - {State.DEAD_LETTER}).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"dead letters are left after {_PATIENCE_S:.0f} s")
        time.sleep(0.5)
    steps = JobEvent.objects.filter(id__gt=last).order_by()
    return {
        "let_go_s": _first(steps.filter(state=State.PENDING)),
        "completed_s": _first(steps.filter(state=State.COMPLETED)),
    }


def _bury(numbers: range) -> None:
    now, crime = timezone.now(), fingerprint(_ERROR)
    jobs = [
        Job(
            id=uuid7(),
            name="bench.noop",
            queue="default",
            priority=Priority.NORMAL,
            payload={"n": number},
            state=State.DEAD_LETTER,
            attempt=4,
            max_attempts=4,
            last_error=_ERROR,
            fingerprint=crime,
            started_at=now,
            finished_at=now,
        )
        for number in numbers
    ]
    Job.objects.bulk_create(jobs)
    JobEvent.objects.bulk_create(JobEvent(job_id=job.id, state=step) for job in jobs for step in _STEPS)


def _first(steps: Any) -> list[float]:
    return [at.timestamp() for _, at in steps.values_list("job").annotate(at=Min("at"))]
