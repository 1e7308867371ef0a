"""Celery's own tasks as jobs of the ledger: {"args": […], "kwargs": {…}} → a checked call, inside a Celery request."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import datetime
from typing import Any

from celery import Task, current_app
from celery._state import _task_stack
from celery.exceptions import Ignore, Reject
from celery.exceptions import Retry as CeleryRetry
from kombu.utils.json import object_hook

from . import typed, wakeup
from .payloads import BadPayload
from .retry import DeadLetter, Retry
from .runs import Run


def is_one(target: object) -> bool:
    return isinstance(target, Task)


def find(name: str) -> Any:
    """The Celery task of this name, or None; Celery's own and the ledger's wake-up are nobody's to enqueue."""
    if name == wakeup.RUN or name.startswith("celery."):
        return None
    return current_app.tasks.get(name)


def arguments(function: Callable[..., Any], payload: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """What `function` is to be called with; pydantic parameters are built. Raises BadPayload.

    Dates, UUIDs, Decimals and bytes come back as a message would have brought them: the recorder keeps a broker job's
    arguments in Kombu's JSON, and a replay runs them from the row.
    """
    args, kwargs = payload.get("args", []), payload.get("kwargs", {})
    if set(payload) - {"args", "kwargs"} or not isinstance(args, list) or not isinstance(kwargs, dict):
        raise BadPayload('the payload of a Celery task is {"args": [...], "kwargs": {...}}')
    try:
        args, kwargs = _decoded(args), _decoded(kwargs)
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        raise BadPayload(f"an argument is not what its __type__ says: {type(error).__name__}") from error
    try:
        call = _signature(function).bind(*args, **kwargs)
    except TypeError as error:
        raise BadPayload(f"the arguments do not fit the task: {error}") from error
    for name, model in _models(function).items():
        if name in call.arguments:
            call.arguments[name] = typed.rebuild(model, call.arguments[name], name)
    return list(call.args), call.kwargs


def call(task: Any, args: list[Any], kwargs: dict[str, Any], run: Run) -> Any:
    """Run the task as a worker of Celery would; what it retries (`self.retry()`, `autoretry_for`) raises our Retry."""
    _task_stack.push(task)
    # As from `apply()`: its retry is raised with the wait, where a worker's would be published to the broker.
    about = {"is_eager": True, "called_directly": False, "delivery_info": {"routing_key": run.queue}}
    task.push_request(id=str(run.id), args=args, kwargs=kwargs, retries=run.attempt - 1, **about)
    try:
        return task.run(*args, **kwargs)
    except Ignore:
        return None
    except Reject as error:
        raise DeadLetter(str(error.reason)) from error
    except CeleryRetry as error:
        raise Retry(str(error), after=_wait_s(error.when)) from error
    finally:
        task.pop_request()
        _task_stack.pop()


def most_retries(task: Any) -> int:
    """Celery's None is no limit; ours ends at 100."""
    return 100 if task.max_retries is None else min(int(task.max_retries), 100)


def _decoded(value: Any) -> Any:
    """As Kombu's JSON would have read it: from the innermost value outwards."""
    if isinstance(value, dict):
        return object_hook({key: _decoded(part) for key, part in value.items()})
    return [_decoded(part) for part in value] if isinstance(value, list) else value


def _wait_s(when: Any) -> float | None:
    if isinstance(when, datetime):
        return max(0.0, (when - datetime.now(when.tzinfo)).total_seconds())
    return when if when is None else max(0.0, float(when))


@functools.lru_cache(maxsize=1024)
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


@functools.lru_cache(maxsize=1024)
def _models(function: Callable[..., Any]) -> dict[str, Any]:
    return typed.models_of(function)
