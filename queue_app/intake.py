"""enqueue: the job's row in the caller's transaction, the broker told after its commit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import transaction
from django.utils import timezone

from foundation import request_id as request_ids

from . import ledger, payloads, queues, states, wakeup
from .conf import conf
from .ledger import Wakeup
from .models import Job, Queue
from .registry import Task, resolve
from .states import Priority
from .uuid7 import uuid7

_LONGEST_DELAY_S = 10 * 365 * 86_400
_LONGEST_TENANT = 64


def enqueue(
    target: Task | str,
    payload: dict[str, Any],
    *,
    queue: str | None = None,
    priority: int = Priority.NORMAL,
    delay_s: float = 0,
    run_at: datetime | None = None,
    expires_s: float | None = None,
    tenant: str = "",
    parent: Job | UUID | None = None,
    request_id: str | None = None,
    max_retries: int | None = None,
) -> Job:
    """Store a job and have a worker run it; inside a transaction it exists when that commits, and only then.

    target: a `@task` function, its name, or the name of a queue with one task. queue: another queue than the task's.
    priority: 0..9 or a Priority. delay_s or run_at (aware): not before. expires_s: not started later than this many
    seconds after its time. max_retries: runs after the first one.
    ValueError (UnknownTask, UnknownQueue, BadPayload) stores nothing; a broker that is down does not matter.
    """
    (job,) = enqueue_many(
        target,
        [payload],
        queue=queue,
        priority=priority,
        delay_s=delay_s,
        run_at=run_at,
        expires_s=expires_s,
        tenant=tenant,
        parent=parent,
        request_id=request_id,
        max_retries=max_retries,
    )
    return job


def enqueue_many(
    target: Task | str,
    payloads_: Iterable[dict[str, Any]],
    *,
    queue: str | None = None,
    priority: int = Priority.NORMAL,
    delay_s: float = 0,
    run_at: datetime | None = None,
    expires_s: float | None = None,
    tenant: str = "",
    parent: Job | UUID | None = None,
    request_id: str | None = None,
    max_retries: int | None = None,
) -> list[Job]:
    """A job for each payload: stored by one statement, published in one go after the commit. All of them or none.

    The options are those of `enqueue`.
    """
    task = resolve(target)
    now = timezone.now()
    run_after = _run_after(delay_s, run_at, now)
    policy = queues.find(queue or task.queue)
    common: dict[str, Any] = {
        "name": task.name,
        "queue": policy.name,
        "tenant": _tenant(tenant),
        "priority": states.priority(priority),
        "max_attempts": 1 + _max_retries(max_retries, task, policy),
        "run_after": run_after,
        "expires_at": _expires_at(expires_s, run_after or now),
        "published_at": None if run_after else now,
        "parent": parent.id if isinstance(parent, Job) else parent,
        "request_id": request_id or request_ids.current() or "",
        "created_at": now,
    }
    limit = conf().MAX_PAYLOAD_BYTES
    jobs = [
        Job(id=uuid7(), payload=payloads.accept(payload, max_bytes=limit), **common) for payload in payloads_
    ]
    if jobs:
        ledger.insert(jobs)
    if jobs and not run_after:
        _publish_on_commit(jobs)
    return jobs


aenqueue = sync_to_async(enqueue)
aenqueue_many = sync_to_async(enqueue_many)


def _publish_on_commit(jobs: Sequence[Job]) -> None:
    messages = [Wakeup(job.id, job.queue, job.priority) for job in jobs]
    transaction.on_commit(lambda: wakeup.publish(messages), robust=True)


def _run_after(delay_s: float, run_at: datetime | None, now: datetime) -> datetime | None:
    if run_at is not None and delay_s:
        raise ValueError("give delay_s or run_at, not both")
    if not math.isfinite(delay_s) or not 0 <= delay_s <= _LONGEST_DELAY_S:
        raise ValueError(f"delay_s = {delay_s!r} is not a number of seconds from 0 to ten years")
    if run_at is None:
        return now + timedelta(seconds=delay_s) if delay_s else None
    if timezone.is_naive(run_at):
        raise ValueError("run_at has no time zone")
    return run_at if run_at > now else None


def _expires_at(expires_s: float | None, since: datetime) -> datetime | None:
    if expires_s is None:
        return None
    if not math.isfinite(expires_s) or not 0 < expires_s <= _LONGEST_DELAY_S:
        raise ValueError(f"expires_s = {expires_s!r} is not a number of seconds from 0 to ten years")
    return since + timedelta(seconds=expires_s)


def _tenant(name: str) -> str:
    if not isinstance(name, str) or len(name) > _LONGEST_TENANT:
        raise ValueError(f"a tenant is a text of up to {_LONGEST_TENANT} characters")
    return name


def _max_retries(asked: int | None, task: Task, queue: Queue) -> int:
    for given in (asked, task.max_retries, queue.max_retries):
        if given is not None:
            if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= 100:
                raise ValueError(f"max_retries = {given!r} is not a whole number from 0 to 100")
            return given
    return conf().MAX_RETRIES
