"""Tasks of Django's framework. Not called `tasks`: where the framework is missing, nobody imports it."""

from __future__ import annotations

from typing import Any

from django import VERSION

from queue_app import Retry

if VERSION >= (6, 0):
    from django.tasks import task
else:
    from django_tasks import task


class Refused(Exception):
    pass


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task(priority=10, queue_name="letters", takes_context=True)
def tell(context: Any, *words: str, **more: str) -> dict[str, Any]:
    result = context.task_result
    return {
        "attempt": context.attempt,
        "id": result.id,
        "status": result.status,
        "args": list(words),
        "kwargs": more,
        "run_after": result.task.run_after is not None,
    }


@task
async def aadd(a: int, b: int) -> int:
    return a + b


@task(takes_context=True)
async def atell(context: Any) -> int:
    return context.attempt


@task
def refuse(text: str = "no") -> None:
    raise Refused(text)


@task(backend="patient")
def fail_once(fails: int = 1) -> str:
    calls.append(1)
    if len(calls) <= fails:
        raise Refused("not yet")
    return "at last"


calls: list[int] = []


@task
def later() -> None:
    raise Retry("in a while", after=0)


@task
def answer_object() -> object:
    return object()
