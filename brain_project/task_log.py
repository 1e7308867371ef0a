"""django-structlog in the workers: the context and the lines of a task, and no work for lines that are not written.

A plain Celery task is a unit of work (`orm_app.work`) from its first signal to its last; a ledger job's is its performer's.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery import bootsteps
from celery.signals import task_postrun, worker_process_shutdown
from django_structlog.celery import receivers, signals
from structlog import contextvars

from orm_app import work

_log = logging.getLogger(receivers.__name__)
_WAKE_UP = "queue_app.run"  # queue_app.wakeup.RUN; this is read before the apps are


class TaskLogStep(bootsteps.Step):
    """In place of django-structlog's own step."""

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self.receiver = TaskReceiver()
        self.receiver.connect_worker_signals()


class TaskReceiver(receivers.CeleryReceiver):
    """Where INFO is off, a task that begins and succeeds leaves no line, and theirs takes a tenth of a short task's time
    to find that out.
    """

    def connect_worker_signals(self) -> None:
        super().connect_worker_signals()
        task_postrun.connect(self.receiver_task_postrun)
        worker_process_shutdown.connect(_store_slow_queries)  # a child of the pool ends without atexit

    def receiver_task_prerun(self, task_id: str, task: Any, *args: Any, **kwargs: Any) -> None:
        if task.name != _WAKE_UP and work.current() is None:
            # Its reads see what was committed before, by whoever sent it.
            unit = work.Unit("job", task.name, task_id, since=time.monotonic())
            task.request._brain_unit = work.begin(unit)
        if _log.isEnabledFor(logging.INFO):
            super().receiver_task_prerun(task_id, task, *args, **kwargs)
            return
        contextvars.clear_contextvars()
        metadata = getattr(task.request, "__django_structlog__", {})
        contextvars.bind_contextvars(**{"task_id": task_id, **metadata})
        signals.bind_extra_task_metadata.send(
            sender=super().receiver_task_prerun, task=task, logger=receivers.logger
        )
        task.request._django_structlog_started_at = (
            time.monotonic_ns()
        )  # a failure has a line, with its duration

    def receiver_task_postrun(self, task: Any, *args: Any, **kwargs: Any) -> None:
        begun = getattr(task.request, "_brain_unit", None)
        if begun is not None:
            task.request._brain_unit = None
            work.end(*begun)

    def receiver_task_success(self, result: str | None = None, sender: Any = None, **kwargs: Any) -> None:
        if _log.isEnabledFor(logging.INFO):
            super().receiver_task_success(result, sender, **kwargs)


def _store_slow_queries(**_: Any) -> None:
    from orm_app.slow import flusher  # not before the apps are ready

    flusher.flusher.stop()
