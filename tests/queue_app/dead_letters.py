"""Jobs in the state that a test is about, and people of each role in front of them."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from queue_app import enqueue
from queue_app.models import Job
from queue_app.states import State

PAYLOAD = {"to": "a@example.com", "subject": "hello", "task_id": 1}
ERROR = {"type": "OSError", "message": "refused", "traceback": "Traceback …\nOSError: refused"}


def job(state: State = State.DEAD_LETTER, *, queue: str = "email_queue", **changes: Any) -> Job:
    """A job of the mail task, put into `state` behind the ledger's back."""
    made = enqueue("email_queue", PAYLOAD, queue=queue, request_id=changes.pop("request_id", "r-made"))
    fields: dict[str, Any] = {"state": state.value}
    if state == State.DEAD_LETTER:
        fields |= {"attempt": 4, "last_error": ERROR, "finished_at": timezone.now()}
    Job.objects.filter(pk=made.pk).update(**fields | changes)
    return Job.objects.get(pk=made.pk)


def standing(*jobs: Job) -> list[str]:
    """The states in which the jobs are now."""
    return [Job.objects.get(pk=one.pk).state for one in jobs]
