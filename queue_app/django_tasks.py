"""The ledger as a backend of Django's task framework: `TASKS = {"default": {"BACKEND": "queue_app.django_tasks.LedgerBackend"}}`.

    task.enqueue → job row in the caller's transaction → claim → run → end on the row → get_result

On Django 6 the framework is `django.tasks`; on 5.2 it is the package `django-tasks` (requirements-tasks.txt).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from billiard.common import terminate_handler_fired
from django.core import checks
from django.utils import timezone

from . import async_loop, intake, payloads, performing, queues, registry, retry, task_results
from .conf import conf
from .models import Delivery, Job
from .runs import Cancelled, FencedOut, Run
from .states import Priority, State
from .tasks_framework import (
    BaseTaskBackend,
    InvalidTask,
    Task,
    TaskContext,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    normalize_json,
    task_enqueued,
    task_finished,
    task_started,
)

__all__ = ["LedgerBackend"]

_OPTIONS = ("max_retries",)


class LedgerBackend(BaseTaskBackend):
    """Tasks as jobs of the ledger. `QUEUES`: [] takes every queue.

    `OPTIONS = {"max_retries": n}`: runs after the first one. 0 by default, as the framework promises no retries; None
    takes the queue's. Tasks are known where they are declared: a worker imports their module, if an installed app has it.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def validate_task(self, task: Task) -> None:
        """Also makes the task known to this process: every Task comes by here when it is declared. Raises InvalidTask."""
        super().validate_task(task)
        if not queues.is_name(task.queue_name):
            raise InvalidTask(f"{task.queue_name!r} cannot name a queue.")
        _known(task)

    def enqueue(self, task: Task, args: Any, kwargs: Any) -> TaskResult:
        """The job in the caller's transaction. Raises InvalidTask, TypeError for arguments that are not JSON, ValueError."""
        self.validate_task(task)
        policy = queues.find(task.queue_name)
        if policy.delivery == Delivery.BROKER:
            raise InvalidTask(f"Queue {policy.name!r} has broker delivery, which keeps no results for tasks.")
        payload = task_results.payload_of(task, normalize_json(args), normalize_json(kwargs))
        job = intake.enqueue(
            _known(task),
            payload,
            queue=task.queue_name,
            priority=ledger_priority(task.priority),
            run_at=task.run_after,
            max_retries=self.options.get("max_retries", 0),
        )
        result: TaskResult = TaskResult(
            task=task,
            id=str(job.id),
            status=TaskResultStatus.READY,
            enqueued_at=job.created_at,
            started_at=None,
            finished_at=None,
            last_attempted_at=None,
            args=payload["args"],
            kwargs=payload["kwargs"],
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> TaskResult:
        """Raises TaskResultDoesNotExist: also for a job of another backend, and when its task is gone from the code."""
        try:
            job = Job.objects.prefetch_related("events").get(id=UUID(str(result_id)))
            known = registry.find(job.name)
        except (ValueError, Job.DoesNotExist) as error:
            raise TaskResultDoesNotExist(result_id) from error
        if not isinstance(known, DeclaredTask):
            raise TaskResultDoesNotExist(result_id)
        result = task_results.result_of(job, known.declared)
        if result.backend != self.alias:
            raise TaskResultDoesNotExist(result_id)
        return result

    def check(self, **kwargs: Any) -> Iterable[checks.CheckMessage]:
        yield from super().check(**kwargs)
        for problem, hint in self._problems():
            yield checks.Error(
                f"TASKS[{self.alias!r}]: {problem}.",
                hint=f"{hint} See docs/checks.md#queue-e010.",
                id="queue.E010",
            )

    def _problems(self) -> Iterator[tuple[str, str]]:
        for name in sorted(set(self.options) - set(_OPTIONS)):
            yield f"OPTIONS has no {name!r}", f"There is {', '.join(_OPTIONS)}."
        for name in sorted(map(str, self.queues)):
            if not queues.is_name(name):
                yield f"{name!r} cannot name a queue", "Use letters, digits, dots, dashes and underscores."
        try:
            if self.options.get("max_retries") is not None:
                intake.check_retries(self.options["max_retries"])
        except ValueError as error:
            yield str(error), "It is how often a task that failed runs again."


class DeclaredTask(registry.Task):
    """A task of the framework as the ledger's workers know it. declared: as its module has it."""

    def __init__(self, declared: Task) -> None:
        self.declared = declared
        super().__init__(
            declared.func,
            name=declared.module_path,
            queue=declared.queue_name,
            max_retries=declared.get_backend().options.get("max_retries", 0),
        )

    def _call(self, payload: dict[str, Any], run: Run) -> Any:
        result = task_results.result_of(Job.objects.prefetch_related("events").get(id=run.id), self.declared)
        sender = type(result.task.get_backend())
        task_started.send_robust(sender, task_result=result)
        try:
            answer = normalize_json(self._answer(result, run))
        except BaseException as error:
            if not terminate_handler_fired() and self._is_last(error, run):
                told = performing.describe(error, max_bytes=conf().MAX_TRACEBACK_BYTES)
                result.errors[:] = [task_results.task_error(told)]
                task_results.change(result, status=TaskResultStatus.FAILED, finished_at=timezone.now())
                task_finished.send_robust(sender, task_result=result)
            raise
        task_results.change(
            result, status=TaskResultStatus.SUCCESSFUL, finished_at=timezone.now(), _return_value=answer
        )
        task_finished.send_robust(sender, task_result=result)
        return answer

    def _answer(self, result: TaskResult, run: Run) -> Any:
        args, kwargs = list(result.args), dict(result.kwargs)
        if self.declared.takes_context:
            args.insert(0, TaskContext(task_result=result))
        if self.is_async:
            return async_loop.run(self.function, args, run, kwargs)
        return self.function(*args, **kwargs)

    def _is_last(self, error: BaseException, run: Run) -> bool:
        """Whether this failure is for good; only the state of the decision matters here."""
        if isinstance(error, Cancelled | FencedOut):
            return isinstance(error, Cancelled)  # the other one: another worker has the job
        decision = retry.decide(
            error,
            attempt=run.attempt,
            max_attempts=run.max_attempts,
            rules=self.rules,
            base_s=0,
            max_s=0,
            jitter=0,
            budget=None,
            now=0,
        )
        return decision.state != State.FAILED

    def _check(self, text: str) -> None:
        """Arguments that the function cannot take are refused when they are given. Raises BadPayload."""
        args, kwargs = task_results.arguments(payloads.parse(text))
        context = [None] if self.declared.takes_context else []
        try:
            inspect.signature(self.function).bind(*context, *args, **kwargs)
        except TypeError as error:
            raise payloads.BadPayload(f"not arguments of {self.name}: {error}") from error

    def _check_parameters(self) -> bool:
        return False


def ledger_priority(priority: int) -> int:
    """-100..100 on the ledger's scale: 0 is NORMAL, and whatever is above or below it stays so."""
    if priority < 0:
        return math.floor(Priority.NORMAL * (1 + priority / 100))
    return math.ceil(Priority.NORMAL + (Priority.CRITICAL - Priority.NORMAL) * priority / 100)


def _known(task: Task) -> DeclaredTask:
    """Its entry in the registry; made by its declaration, and again when its module is reloaded."""
    found = registry.known(task.module_path)
    if isinstance(found, DeclaredTask) and found.function is task.func:
        return found
    made = DeclaredTask(task)
    registry.register(made)
    return made
