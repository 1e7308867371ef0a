"""enqueue: the job's row in the caller's transaction, the broker told after its commit."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.db import transaction
from django.utils import timezone

from foundation import request_id as request_ids

from . import ledger, payloads, queues, states, wakeup
from .conf import conf
from .models import Job, Queue
from .registry import Task, resolve
from .states import Priority
from .uuid7 import uuid7

_LONGEST_DELAY_S = 10 * 365 * 86_400


def enqueue(
    target: Task | str,
    payload: dict[str, Any],
    *,
    queue: str | None = None,
    priority: int = Priority.NORMAL,
    delay_s: float = 0,
    run_at: datetime | None = None,
    request_id: str | None = None,
    max_retries: int | None = None,
) -> Job:
    """Store a job and have a worker run it; inside a transaction it exists when that commits, and only then.

    target: a `@task` function, its name, or the name of a queue with one task. queue: another queue than the task's.
    priority: 0..9 or a Priority. delay_s or run_at (aware): not before. max_retries: runs after the first one.
    ValueError (UnknownTask, UnknownQueue, BadPayload) stores nothing; a broker that is down does not matter.
    """
    task = resolve(target)
    run_after = _run_after(delay_s, run_at)
    accepted = payloads.accept(payload, max_bytes=conf().MAX_PAYLOAD_BYTES)
    found = queues.find(queue or task.queue)
    now = timezone.now()
    job = Job(
        id=uuid7(),
        name=task.name,
        queue=found.name,
        priority=states.priority(priority),
        payload=accepted,
        max_attempts=1 + _max_retries(max_retries, task, found),
        run_after=run_after,
        published_at=None if run_after else now,
        request_id=request_id or request_ids.current() or "",
        created_at=now,
    )
    ledger.insert(job)
    if not run_after:
        message = ledger.Wakeup(job.id, job.queue, job.priority)
        transaction.on_commit(lambda: wakeup.publish([message]), robust=True)
    return job


aenqueue = sync_to_async(enqueue)


def _run_after(delay_s: float, run_at: datetime | None) -> datetime | None:
    if run_at is not None and delay_s:
        raise ValueError("give delay_s or run_at, not both")
    if not math.isfinite(delay_s) or not 0 <= delay_s <= _LONGEST_DELAY_S:
        raise ValueError(f"delay_s = {delay_s!r} is not a number of seconds from 0 to ten years")
    if run_at is None:
        return timezone.now() + timedelta(seconds=delay_s) if delay_s else None
    if timezone.is_naive(run_at):
        raise ValueError("run_at has no time zone")
    return run_at if run_at > timezone.now() else None


def _max_retries(asked: int | None, task: Task, queue: Queue) -> int:
    for given in (asked, task.max_retries, queue.max_retries):
        if given is not None:
            if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= 100:
                raise ValueError(f"max_retries = {given!r} is not a whole number from 0 to 100")
            return given
    return conf().MAX_RETRIES
