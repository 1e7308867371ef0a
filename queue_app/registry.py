"""Tasks: the code that a job names. `@task` registers a function of the payload; it stays callable as it is."""

from __future__ import annotations

import difflib
import functools
import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any, TypedDict, Unpack, overload

import structlog
from django.apps import apps
from django.db import DatabaseError

from foundation.secret_box import SecretBox

from . import async_loop, limits, lineage, offload, payloads, retry, secret_fields, shared_tasks, typed
from .conf import conf
from .retry import RetryBudget, RetryPolicy
from .runs import Run

Function = Callable[..., Any]

log = structlog.get_logger(__name__)

_box = SecretBox("queue")


class UnknownTask(ValueError):
    """No task of this name is registered in this process."""


class UnknownOption(TypeError, ValueError):
    """There is no option of this name."""


class Options(TypedDict, total=False):
    """Of `@task`. What is left out or None is the queue's, then the conf's."""

    name: str | None  # what job rows carry; by default the dotted path of the function
    queue: str | None  # by default BRAIN["QUEUE"].DEFAULT_QUEUE
    max_retries: int | None  # runs after the first one
    backoff_base_s: float | None  # longest wait before the first retry; doubles each time
    backoff_max_s: float | None
    retry_on: (
        Mapping[type[BaseException], RetryPolicy] | Iterable[type[BaseException]] | None
    )  # and nothing else
    never_retry_on: Iterable[type[BaseException]]  # a dead letter at once
    retry_budget: float | None  # share of the runs in a minute that may be retries; see retry.RetryBudget
    soft_time_limit_s: float | None  # the run is interrupted
    time_limit_s: float | None  # the run is ended
    secret_fields: Iterable[str]  # dotted paths in the payload that are stored sealed; see secret_fields.py


class Task:
    """A registered function and its options."""

    def __init__(self, function: Function, **options: Unpack[Options]) -> None:
        refuse_unknown(options, Options, "a task")
        functools.update_wrapper(self, function)
        self.function = function
        self.name = options.get("name") or f"{function.__module__}.{function.__qualname__}"
        self.max_retries = options.get("max_retries")
        self.backoff_base_s, self.backoff_max_s = options.get("backoff_base_s"), options.get("backoff_max_s")
        self.soft_time_limit_s, self.time_limit_s = _time_limits(options)
        self.rules = retry.rules(options.get("retry_on"), options.get("never_retry_on", ()))
        self.budget = _budget(options.get("retry_budget"))
        self.secret_fields = _paths(options.get("secret_fields", ()))
        self._queue = options.get("queue")
        self._takes_job = self._check_parameters()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name} on {self.queue}>"

    @property
    def queue(self) -> str:
        return self._queue or conf().DEFAULT_QUEUE

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)

    def accept(self, payload: object, *, max_bytes: int) -> str:
        """The payload as the JSON text that a row holds: checked, and its secret fields sealed. Raises BadPayload."""
        if typed.is_instance(payload):
            text = typed.text_of(payload)
            payloads.check_text(text, max_bytes=max_bytes)
        else:
            text = payloads.accept(payload, max_bytes=max_bytes)
        self._checked(text)
        if not self.secret_fields:
            return text
        sealed = secret_fields.seal(payloads.parse(text), self.secret_fields, _box.seal)
        return payloads.accept(sealed, max_bytes=max_bytes)

    def reveal(self, payload: dict[str, Any]) -> dict[str, Any]:
        """A stored payload with its secret fields open: for the handler, never for people."""
        return secret_fields.unseal(payload, self.secret_fields, _box.open)

    def perform(self, run: Run) -> Any:
        """Run the function for this run and return its result; an `async def` runs on the process's event loop."""
        if self.budget is not None:
            self.budget.ran(time.monotonic())
        payload = offload.load(run.id) if run.payload is None else run.payload
        with lineage.running(run.id):
            return self._call(self.reveal(payload), run)

    def _call(self, payload: dict[str, Any], run: Run) -> Any:
        argument = payload if self._model is None else typed.rebuild(self._model, payload)
        arguments = (argument, run) if self._takes_job else (argument,)
        if self.is_async:
            return async_loop.run(self.function, arguments, run)
        return self.function(*arguments)

    def _checked(self, text: str) -> None:
        try:
            self._check(text)
        except (ValueError, DatabaseError):
            raise
        except Exception as error:  # pydantic passes on whatever a validator of the model raises
            raise payloads.BadPayload(f"its check failed: {type(error).__name__}") from error

    def _check(self, text: str) -> None:
        if self._model is not None:
            typed.build(self._model, text)

    @functools.cached_property
    def _model(self) -> Any:
        """The pydantic model of the first parameter. Not before the first call: it may stand below in the module."""
        models = typed.models_of(self.function)
        return models.get(next(iter(inspect.signature(self.function).parameters)))

    def _check_parameters(self) -> bool:
        """Whether the function takes the job as well. Raises TypeError."""
        parameters = inspect.signature(self.function).parameters.values()
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if len(positional) not in (1, 2) or any(
            p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters
        ):
            raise TypeError(f"{_path(self.function)} must take (payload) or (payload, job)")
        return len(positional) == 2


class CeleryTask(Task):
    """A `@shared_task`. Its payload is {"args": […], "kwargs": {…}}, and retries are as its decorator and `self.retry()`
    say: an exception that Celery would not retry makes a dead letter at once.
    """

    def __init__(self, task: Any) -> None:
        self._celery_task = task
        super().__init__(
            task.run,
            name=task.name,
            queue=getattr(task, "queue", None),
            max_retries=shared_tasks.most_retries(task),
            retry_on=(),
        )

    def _call(self, payload: dict[str, Any], run: Run) -> Any:
        args, kwargs = shared_tasks.arguments(self.function, payload)
        if self.is_async:
            return async_loop.run(self.function, args, run, kwargs)
        return shared_tasks.call(self._celery_task, args, kwargs, run)

    def _check(self, text: str) -> None:
        shared_tasks.arguments(self.function, payloads.parse(text))

    def _check_parameters(self) -> bool:
        return False


_tasks: dict[str, Task] = {}


@overload
def task(function: Function) -> Task: ...
@overload
def task(**options: Unpack[Options]) -> Callable[[Function], Task]: ...
def task(function: Function | None = None, **options: Unpack[Options]) -> Task | Callable[[Function], Task]:
    """Register `handler(payload)` or `handler(payload, job)`, sync or async, in an app's `tasks` module.

    A pydantic model as the payload's annotation is checked at enqueue and is what the handler gets. Options: `Options`.
    """

    def decorate(function: Function) -> Task:
        return register(Task(function, **options))

    return decorate if function is None else decorate(function)


def registered() -> list[Task]:
    return list(_tasks.values())


def known(name: str) -> Task | None:
    """The task that was registered under this name in this process."""
    return _tasks.get(name)


def find(name: str) -> Task:
    """The task of this name, ours, Celery's, or declared in a module that nobody has imported yet. Raises UnknownTask."""
    found = _tasks.get(name) or _of_celery(name) or _of_module(name)
    if found is None:
        raise UnknownTask(f"no task is called {name!r}{_suggestion(name, list(_tasks))}")
    return found


def resolve(target: Any) -> Task:
    """A task, ours or Celery's, the name of one, or the name of a queue that exactly one task is registered on.

    Raises UnknownTask.
    """
    if isinstance(target, Task):
        return target
    name = getattr(target, "name", None) if shared_tasks.is_one(target) else target
    if not isinstance(name, str):
        raise UnknownTask(f"a {type(target).__name__} is no task: give a @task function or a name")
    found = _tasks.get(name) or _of_celery(name)
    return found or _on_queue(name)


def _on_queue(name: str) -> Task:
    on_queue = [known for known in _tasks.values() if known.queue == name]
    if len(on_queue) == 1:
        return on_queue[0]
    if on_queue:
        names = ", ".join(sorted(known.name for known in on_queue))
        raise UnknownTask(f"queue {name!r} has several tasks ({names}): name the one you mean")
    names_and_queues = [*_tasks, *(known.queue for known in _tasks.values())]
    raise UnknownTask(f"no task or queue is called {name!r}{_suggestion(name, names_and_queues)}")


def refuse_unknown(given: Mapping[str, Any], known: Any, whose: str) -> None:
    """known: a TypedDict. Raises UnknownOption."""
    names = known.__annotations__
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"
            raise UnknownOption(f"{whose} has no option {name!r}; {hint}")


def _of_celery(name: str) -> Task | None:
    found = shared_tasks.find(name)
    return None if found is None else _adapted(found)


def _of_module(name: str) -> Task | None:
    """Names are dotted paths by default, and the tasks of Django's framework may stand in any module of an app."""
    module = name.rpartition(".")[0]
    if not module or apps.get_containing_app_config(module) is None:
        return None
    try:
        import_module(module)  # waits for another thread that is at it: half a module knows half of its tasks
    except Exception as error:  # noqa: BLE001  (whatever it does: the job waits for a worker whose code is better)
        log.warning("task_module_not_imported", module=module, error=type(error).__name__)
        return None
    return _tasks.get(name)


@functools.lru_cache(maxsize=1024)
def _adapted(celery_task: Any) -> CeleryTask:
    return CeleryTask(celery_task)


def register(new: Task) -> Task:
    """Make a task known to this process. Raises ValueError when another function has its name."""
    old = _tasks.setdefault(new.name, new)
    if old is not new and _path(old.function) != _path(new.function):
        raise ValueError(
            f"two tasks are called {new.name!r}: {_path(old.function)} and {_path(new.function)}"
        )
    _tasks[new.name] = new  # the same function again: its module was reloaded
    return new


def _time_limits(options: Options) -> tuple[float | None, float | None]:
    soft_s, hard_s = options.get("soft_time_limit_s"), options.get("time_limit_s")
    return limits.accept("soft_time_limit_s", soft_s), limits.accept("time_limit_s", hard_s)


def _paths(fields: Iterable[str]) -> tuple[str, ...]:
    paths = () if isinstance(fields, str) else tuple(fields)
    if isinstance(fields, str) or not all(isinstance(path, str) and path for path in paths):
        raise TypeError('secret_fields are dotted paths: ("card.number",)')
    return paths


def _budget(ratio: float | None) -> RetryBudget | None:
    if ratio is None:
        return None
    if not 0 < ratio <= 1:
        raise ValueError(f"retry_budget = {ratio!r} is not a share above 0 and up to 1")
    return RetryBudget(ratio)


def _path(function: Function) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _suggestion(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return "; tasks are registered by @task in the `tasks` module of an installed app"
