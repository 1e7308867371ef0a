"""Perform a run and say how it ends: the handler's result or exception → End. The engine records what this returns."""

from __future__ import annotations

import json
import logging
import random
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import structlog
from billiard.common import terminate_handler_fired

from foundation import request_id as request_ids
from orm_app import work

from . import failures, payloads, policies, registry, retry, watchdog
from .conf import conf
from .runs import Cancelled, FencedOut, Run
from .statements import End
from .states import State

log = structlog.get_logger(__name__)
_logger = logging.getLogger(
    __name__
)  # asked first: structlog's own filtering costs ten times as much as the question


def _untold(error: BaseException) -> None:
    """Whoever runs jobs by the thousand reads of it on the row."""


def perform(run: Run, tell: Callable[[BaseException], None] = _untold) -> End:
    """Run the handler; never raises for what the handler does. tell: hears the exception of a failed one."""
    with ExitStack() as context:
        # Its reads see what was committed before: by whoever enqueued it, and by the job that it waited for.
        context.enter_context(work.unit("job", run.name, str(run.id), since=time.monotonic()))
        if run.request_id:
            context.enter_context(request_ids.bound(run.request_id))
        if _logger.isEnabledFor(logging.INFO):
            names = {"job_id": str(run.id), "task": run.name, "queue": run.queue}
            context.enter_context(structlog.contextvars.bound_contextvars(**names))
            log.info("job_started", attempt=run.attempt, max_attempts=run.max_attempts)
        return _performed(run, tell)


def _performed(run: Run, tell: Callable[[BaseException], None]) -> End:
    began = time.monotonic()
    try:
        task = registry.find(run.name)
    except registry.UnknownTask as error:
        return parked(run, str(error))
    try:
        result = watchdog.call(task.perform, run, limit_s=run.soft_limit_s)
    except Cancelled:
        log.info("job_cancelled")
        return End(run.id, run.fence, State.CANCELLED, 1, detail=json.dumps({"reason": "cancelled"}))
    except FencedOut:
        log.warning("job_result_refused", reason="it was given to another worker meanwhile")
        return End(run.id, run.fence, State.FAILED, 1)  # the fence refuses this one as well
    except BaseException as error:  # whatever a handler raises is the job's failure
        if terminate_handler_fired():
            raise  # not the handler's: this child of the pool was told to end
        tell(error)
        return failed(run, error)
    if _logger.isEnabledFor(logging.INFO):
        log.info("job_completed", took_ms=round((time.monotonic() - began) * 1000, 1))
    return completed(run, result)


def failed(run: Run, error: BaseException) -> End:
    """FAILED with the wait before the next run, DEAD_LETTER when there is none, or CANCELLED: as `retry` decides."""
    told = describe(error, max_bytes=conf().MAX_TRACEBACK_BYTES)
    decision = _decision(run, error)
    detail: dict[str, Any] = {"error": told["type"]}
    if decision.reason:
        detail["reason"] = failures.reason(decision.reason)
    if decision.state == State.CANCELLED:
        log.info("job_discarded")
        return End(run.id, run.fence, State.CANCELLED, 1, detail=json.dumps(detail))
    if decision.delay_s is None:
        log.error("job_dead_lettered", error=told["type"], attempts=run.attempt, reason=decision.reason)
    else:
        detail["retry_in_s"] = round(decision.delay_s, 3)
        log.warning("job_retried", attempt=run.attempt, **detail)
    detail |= failures.in_history(told)
    return End(
        run.id,
        run.fence,
        decision.state,
        1,
        error=json.dumps(told),
        delay_s=decision.delay_s,
        detail=json.dumps(detail),
    )


def parked(run: Run, reason: str) -> End:
    """Nobody here knows the task: it waits for a worker whose code does, and is neither run nor charged."""
    delay_s = conf().PARK_S
    log.error("job_parked", job_id=str(run.id), task=run.name, reason=reason, retry_in_s=delay_s)
    detail = json.dumps({"reason": "unknown task", "retry_in_s": delay_s})
    return End(run.id, run.fence, State.PENDING, 0, delay_s=delay_s, detail=detail)


def describe(error: BaseException, *, max_bytes: int) -> dict[str, str]:
    """An exception as type, path of its class, message and the end of its traceback, each bounded."""
    text = "".join(traceback.format_exception(error))
    kind = type(error)
    path = f"{kind.__module__}.{kind.__qualname__}"
    return failures.told(error, text, path=path, max_bytes=max_bytes)


def completed(run: Run, result: Any) -> End:
    """COMPLETED with its result as JSON. One that cannot be kept is said in the log and in the history."""
    end = End(run.id, run.fence, State.COMPLETED, 1)
    if result is None:
        return end
    try:
        return end._replace(result=payloads.text(result, max_bytes=conf().MAX_RESULT_BYTES))
    except payloads.BadPayload as error:  # what the job was for is done: it must not run again for this
        log.warning("job_result_not_kept", reason=str(error))
        return end._replace(detail=json.dumps({"reason": failures.reason(f"result not kept: {error}")}))


def _decision(run: Run, error: BaseException) -> retry.Decision:
    task = registry.find(run.name)
    base_s, max_s = _backoff(run)
    return retry.decide(
        error,
        attempt=run.attempt,
        max_attempts=run.max_attempts,
        rules=task.rules,
        base_s=base_s,
        max_s=max_s,
        jitter=random.random(),  # noqa: S311  (spreads load, guards nothing)
        budget=task.budget,
        now=time.monotonic(),
    )


def _backoff(run: Run) -> tuple[float, float]:
    """Base and longest wait in seconds: the task's, else the queue's, else the conf's."""
    set_by: list[Any] = [registry.find(run.name)]
    queue = policies.by_name().get(run.queue)
    set_by += [queue] if queue else []
    base_s = next((p.backoff_base_s for p in set_by if p.backoff_base_s is not None), conf().BACKOFF_BASE_S)
    max_s = next((p.backoff_max_s for p in set_by if p.backoff_max_s is not None), conf().BACKOFF_MAX_S)
    return base_s, max_s
