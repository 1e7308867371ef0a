"""Tasks: the code that a job names. `@task` registers a function of the payload; it stays callable as it is."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, overload

from asgiref.sync import async_to_sync

from .conf import conf
from .runs import Run

Function = Callable[..., Any]


class UnknownTask(ValueError):
    """No task of this name is registered in this process."""


class Task:
    """A registered function. max_retries and back-off (seconds) left at None are taken from the queue, then the conf."""

    def __init__(
        self,
        function: Function,
        *,
        name: str | None,
        queue: str | None,
        max_retries: int | None,
        backoff_base_s: float | None,
        backoff_max_s: float | None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name or f"{function.__module__}.{function.__qualname__}"
        self.max_retries, self.backoff_base_s, self.backoff_max_s = max_retries, backoff_base_s, backoff_max_s
        self._queue = queue
        self._takes_job = _parameters(function) == 2

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name} on {self.queue}>"

    @property
    def queue(self) -> str:
        return self._queue or conf().DEFAULT_QUEUE

    def perform(self, run: Run) -> Any:
        """Run the function for this run and return its result; an `async def` gets an event loop for its run."""
        arguments = (run.payload, run) if self._takes_job else (run.payload,)
        if inspect.iscoroutinefunction(self.function):
            # Django's own bridge: the ORM behind sync_to_async stays on this thread and its connection.
            return async_to_sync(self.function)(*arguments)
        return self.function(*arguments)


_tasks: dict[str, Task] = {}


@overload
def task(function: Function) -> Task: ...
@overload
def task(
    *,
    queue: str | None = None,
    name: str | None = None,
    max_retries: int | None = None,
    backoff_base_s: float | None = None,
    backoff_max_s: float | None = None,
) -> Callable[[Function], Task]: ...
def task(
    function: Function | None = None,
    *,
    queue: str | None = None,
    name: str | None = None,
    max_retries: int | None = None,
    backoff_base_s: float | None = None,
    backoff_max_s: float | None = None,
) -> Task | Callable[[Function], Task]:
    """Register `handler(payload)` or `handler(payload, job)`, sync or async, in an app's `tasks` module.

    name: what job rows carry, by default the dotted path of the function; queue: by default BRAIN["QUEUE"].DEFAULT_QUEUE;
    max_retries: runs after the first one.
    """

    def register(function: Function) -> Task:
        return _register(
            Task(
                function,
                name=name,
                queue=queue,
                max_retries=max_retries,
                backoff_base_s=backoff_base_s,
                backoff_max_s=backoff_max_s,
            )
        )

    return register if function is None else register(function)


def registered() -> list[Task]:
    return list(_tasks.values())


def find(name: str) -> Task:
    """The task of this name. Raises UnknownTask."""
    try:
        return _tasks[name]
    except KeyError:
        raise UnknownTask(f"no task is called {name!r}{_suggestion(name, list(_tasks))}") from None


def resolve(target: Task | str) -> Task:
    """A task, the name of one, or the name of a queue that exactly one task is registered on. Raises UnknownTask."""
    if isinstance(target, Task):
        return target
    if target in _tasks:
        return _tasks[target]
    on_queue = [known for known in _tasks.values() if known.queue == target]
    if len(on_queue) == 1:
        return on_queue[0]
    if on_queue:
        names = ", ".join(sorted(known.name for known in on_queue))
        raise UnknownTask(f"queue {target!r} has several tasks ({names}): name the one you mean")
    names_and_queues = [*_tasks, *(known.queue for known in _tasks.values())]
    raise UnknownTask(f"no task or queue is called {target!r}{_suggestion(target, names_and_queues)}")


def _register(new: Task) -> Task:
    old = _tasks.setdefault(new.name, new)
    if old is not new and _path(old.function) != _path(new.function):
        raise ValueError(
            f"two tasks are called {new.name!r}: {_path(old.function)} and {_path(new.function)}"
        )
    _tasks[new.name] = new  # the same function again: its module was reloaded
    return new


def _path(function: Function) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _parameters(function: Function) -> int:
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) not in (1, 2) or any(
        p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters
    ):
        raise TypeError(f"{_path(function)} must take (payload) or (payload, job)")
    return len(positional)


def _suggestion(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return "; tasks are registered by @task in the `tasks` module of an installed app"
