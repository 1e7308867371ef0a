"""The Celery task that runs jobs: claim (fenced) → run → finish | retry later | dead letter."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar
from uuid import UUID

import structlog
from celery import shared_task
from django.db import InterfaceError, OperationalError, connection

from foundation import request_id as request_ids

from . import ledger, payloads, registry, retry, wakeup, workers
from .conf import conf
from .models import Job, Queue

log = structlog.get_logger(__name__)

T = TypeVar("T")
_WRITE_TRIES = 8  # with the pauses between them: about 25 s of a database that does not answer
_FIRST_PAUSE_S = 0.1


# Acknowledged early: the broker never redelivers. What a dead worker held comes back through its lease.
@shared_task(name=wakeup.RUN, ignore_result=True, acks_late=False)
def run(id: str) -> None:
    """Run the job if it is still there to be run; a message that comes twice finds it taken and does nothing."""
    worker_id = workers.current()
    if worker_id is None:
        log.error("job_refused", job_id=id, reason="this process belongs to no registered worker")
        return
    job = persist(lambda: ledger.claim(UUID(id), worker_id))
    if job is None:
        log.debug("job_not_claimed", job_id=id)
        return
    with ExitStack() as context:
        if job.request_id:
            context.enter_context(request_ids.bound(job.request_id))
        names = {"job_id": id, "task": job.name, "queue": job.queue}
        context.enter_context(structlog.contextvars.bound_contextvars(**names))
        perform(job)


def perform(job: Job) -> None:
    """Run a claimed job and write its end."""
    began = time.monotonic()
    log.info("job_started", attempt=job.attempt + 1, max_attempts=job.max_attempts)
    try:
        result = registry.find(job.name).perform(job)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (whatever a handler raises is the job's failure)
        _failed(job, error)
        return
    kept = _storable(result)
    if persist(lambda: ledger.complete(job, kept)):
        log.info("job_completed", took_ms=round((time.monotonic() - began) * 1000, 1))
    else:
        log.warning("job_result_refused", reason="it was given to another worker meanwhile")


def persist(write: Callable[[], T]) -> T:
    """The result of `write`, tried again while the database does not answer: a run that ended should not be repeated."""
    pause_s = _FIRST_PAUSE_S
    for left in range(_WRITE_TRIES, 0, -1):
        try:
            return write()
        except (OperationalError, InterfaceError) as error:
            if left == 1 or connection.in_atomic_block:
                raise
            log.warning("database_retry", error=type(error).__name__, pause_s=pause_s)
            connection.close()
        time.sleep(pause_s)
        pause_s *= 2
    raise AssertionError("unreachable")


def _failed(job: Job, error: BaseException) -> None:
    told = describe(error, max_bytes=conf().MAX_TRACEBACK_BYTES)
    base_s, max_s = _backoff(job)
    delay_s = retry.next_delay_s(
        job.attempt + 1,
        job.max_attempts,
        base_s=base_s,
        max_s=max_s,
        jitter=random.random(),  # noqa: S311  (spreads load, guards nothing)
    )
    if delay_s is None:
        written = persist(lambda: ledger.bury(job, told))
        log.error(
            "job_dead_lettered" if written else "job_failure_refused",
            error=told["type"],
            attempts=job.attempt,
        )
    else:
        written = persist(lambda: ledger.retry(job, told, delay_s))
        event = "job_retried" if written else "job_failure_refused"
        log.warning(event, error=told["type"], retry_in_s=round(delay_s, 3), attempt=job.attempt)


def describe(error: BaseException, *, max_bytes: int) -> dict[str, str]:
    """An exception as type, message and the end of its traceback, each bounded."""
    text = "".join(traceback.format_exception(error))
    told = {"type": type(error).__name__, "message": str(error)[:1000], "traceback": text[-max_bytes:]}
    return {key: value.replace("\x00", "\ufffd") for key, value in told.items()}  # PostgreSQL stores no NUL


def _backoff(job: Job) -> tuple[float, float]:
    """Base and longest wait in seconds: the task's, else the queue's, else the conf's."""
    task = [known for known in registry.registered() if known.name == job.name]
    policies = [*task, *persist(lambda: list(Queue.objects.filter(name=job.queue)))]
    base_s = next((p.backoff_base_s for p in policies if p.backoff_base_s is not None), conf().BACKOFF_BASE_S)
    max_s = next((p.backoff_max_s for p in policies if p.backoff_max_s is not None), conf().BACKOFF_MAX_S)
    return base_s, max_s


def _storable(result: Any) -> Any:
    try:
        return payloads.plain_json(result, max_bytes=conf().MAX_RESULT_BYTES)
    except payloads.BadPayload as error:  # what the job was for is done: it must not run again for this
        log.warning("job_result_not_kept", reason=str(error))
        return None
