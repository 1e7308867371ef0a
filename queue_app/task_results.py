"""A job's row and history as the result that Django's task framework knows.

PENDING, FAILED → READY · PROCESSING → RUNNING · COMPLETED → SUCCESSFUL · DEAD_LETTER, CANCELLED → FAILED
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from django.utils.dateparse import parse_datetime

from . import offload
from .models import Job, JobEvent
from .payloads import BadPayload
from .states import State
from .tasks_framework import Task, TaskError, TaskResult, TaskResultStatus

STATUSES = {
    State.PENDING: TaskResultStatus.READY,
    State.FAILED: TaskResultStatus.READY,  # to be executed again
    State.PROCESSING: TaskResultStatus.RUNNING,
    State.COMPLETED: TaskResultStatus.SUCCESSFUL,
    State.DEAD_LETTER: TaskResultStatus.FAILED,
    State.CANCELLED: TaskResultStatus.FAILED,
}
_LOST = "billiard.exceptions.WorkerLostError"


class Attempt(NamedTuple):
    worker: str
    started_at: datetime


def payload_of(task: Task, args: Any, kwargs: Any) -> dict[str, Any]:
    """What the job carries: the arguments, and what of the task its row could not say exactly."""
    run_after = task.run_after.isoformat() if task.run_after else None
    return {
        "args": list(args),
        "kwargs": dict(kwargs),
        "backend": task.backend,
        "priority": task.priority,
        "run_after": run_after,
    }


def arguments(payload: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Of a payload, also of one that `enqueue`, a schedule or a person has given. Raises BadPayload."""
    args, kwargs = payload.get("args", []), payload.get("kwargs", {})
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise BadPayload('the payload of a task of Django\'s framework is {"args": [...], "kwargs": {...}}')
    return args, kwargs


def result_of(job: Job, declared: Task) -> TaskResult:
    """As the row stands now. declared: the task as its module has it."""
    payload = offload.load(job.id) if job.payload is None else job.payload
    tries = attempts(job.events.all())
    args, kwargs = arguments(payload)
    result: TaskResult = TaskResult(
        task=_used(declared, job, payload),
        id=str(job.id),
        status=STATUSES[State(job.state)],
        enqueued_at=job.created_at,
        started_at=tries[0].started_at if tries else None,
        finished_at=job.finished_at,
        last_attempted_at=tries[-1].started_at if tries else None,
        args=args,
        kwargs=kwargs,
        backend=payload.get("backend", declared.backend),
        errors=[task_error(job.last_error)] if job.last_error else [],
        worker_ids=[one.worker for one in tries],
    )
    if job.state == State.COMPLETED:
        change(result, _return_value=job.result)
    return result


def change(result: TaskResult, **changes: Any) -> None:
    """A result is frozen for those who read it; its backend writes it."""
    for name, value in changes.items():
        object.__setattr__(result, name, value)


def attempts(events: Iterable[JobEvent]) -> list[Attempt]:
    """The runs of a job, by its history: a claim that was given back before it ran is none."""
    found: list[Attempt] = []
    for event in events:
        if "action" in event.detail:  # somebody replayed, asked or moved it
            continue
        if event.state == State.PROCESSING:
            found.append(Attempt(str(event.worker), event.at))
        elif event.state == State.PENDING and found and not event.detail.get("charged"):
            found.pop()
    return found


def task_error(told: Mapping[str, str]) -> TaskError:
    """Of a job's `last_error`. One that no handler has raised (a lost worker) has no path of its own."""
    name = told.get("type", "")
    known = f"builtins.{name}" if hasattr(builtins, name) else "builtins.Exception"
    path = told.get("path") or (_LOST if name == "WorkerLost" else known)
    return TaskError(
        exception_class_path=path, traceback=told.get("traceback") or f"{name}: {told.get('message', '')}"
    )


def _used(declared: Task, job: Job, payload: Mapping[str, Any]) -> Task:
    run_after = parse_datetime(payload["run_after"]) if payload.get("run_after") else None
    return declared.using(
        priority=payload.get("priority"),
        queue_name=job.queue,
        run_after=run_after,
        backend=payload.get("backend"),
    )
