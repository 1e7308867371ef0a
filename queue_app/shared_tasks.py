"""Celery's own tasks as jobs of the ledger: {"args": […], "kwargs": {…}} → a checked call, inside a Celery request."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from celery import Task, current_app
from celery._state import _task_stack
from celery.exceptions import Ignore, Reject
from celery.exceptions import Retry as CeleryRetry

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
    """What `function` is to be called with; pydantic parameters are built. Raises BadPayload."""
    args, kwargs = payload.get("args", []), payload.get("kwargs", {})
    if set(payload) - {"args", "kwargs"} or not isinstance(args, list) or not isinstance(kwargs, dict):
        raise BadPayload('the payload of a Celery task is {"args": [...], "kwargs": {...}}')
    try:
        call = _signature(function).bind(*args, **kwargs)
    except TypeError as error:
        raise BadPayload(f"the arguments do not fit the task: {error}") from error
    for name, model in _models(function).items():
        if name in call.arguments:
            call.arguments[name] = typed.rebuild(model, call.arguments[name], name)
    return list(call.args), call.kwargs


def call(task: Any, args: list[Any], kwargs: dict[str, Any], run: Run) -> Any:
    """Run the task as a worker of Celery would, except that the ledger retries: `self.retry()` waits as the queue says."""
    _task_stack.push(task)
    # Called directly: `self.retry()` raises what it was given instead of publishing a message of its own.
    task.push_request(id=str(run.id), args=args, kwargs=kwargs, retries=run.attempt - 1, called_directly=True)
    try:
        return task.run(*args, **kwargs)
    except Ignore:
        return None
    except Reject as error:
        raise DeadLetter(str(error.reason)) from error
    except CeleryRetry as error:
        raise Retry(str(error.message or "")) from error
    finally:
        task.pop_request()
        _task_stack.pop()


@functools.lru_cache(maxsize=1024)
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


@functools.lru_cache(maxsize=1024)
def _models(function: Callable[..., Any]) -> dict[str, Any]:
    return typed.models_of(function)
