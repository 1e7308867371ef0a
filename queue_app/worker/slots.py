"""The threads of a worker process, which run ledger jobs and Celery's tasks alike.

In place of the executor of Celery's thread pool, whose future for each task takes longer than a short task, and whose
threads outlive a warm stop. The threads are daemons: the worker decides at its end how long it waits for them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import structlog
from billiard.einfo import ExceptionInfo
from django.db import connections

log = structlog.get_logger(__name__)

_Call = Callable[[], object]
C = TypeVar("C")


class Slots:
    """`size` threads and one queue of calls. Calls start in their order."""

    def __init__(self, size: int) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self.is_closed = False
        self.begun = 0  # differs after a call has begun; two threads at once may count as one
        self.threads = [
            threading.Thread(target=self._serve, name=f"queue-slot-{number}", daemon=True)
            for number in range(size)
        ]
        for thread in self.threads:
            thread.start()

    def submit(self, call: _Call) -> None:
        """Run it on a slot. RuntimeError after `close`."""
        if self.is_closed:
            raise RuntimeError("the slots are closed")
        self._calls.put(call)

    @property
    def waiting(self) -> int:
        return self._calls.qsize()

    def withdraw(self, kind: type[C]) -> list[C]:
        """Take out the calls of this class that wait, in their order."""
        found: list[C] = []
        kept: list[_Call | None] = []
        for _ in range(self._calls.qsize()):
            try:
                call = self._calls.get_nowait()
            except Empty:  # the slots have moved on
                break
            if isinstance(call, kind):
                found.append(call)
            else:
                kept.append(call)
        for call in kept:
            self._calls.put(call)
        return found

    def close(self) -> None:
        """Drop what waits. The threads end after what they are running."""
        self.is_closed = True
        while True:
            try:
                self._calls.get_nowait()
            except Empty:
                break
        for _ in self.threads:
            self._calls.put(None)

    def _serve(self) -> None:
        take = self._calls.get
        try:
            while (call := take()) is not None:
                self.begun += 1
                try:
                    call()
                except BaseException:  # the slot goes on, whatever a handler has raised
                    log.exception("slot_broke")
                del call  # with all that it holds, while this thread waits
        finally:
            connections.close_all()


@dataclass(slots=True)
class TaskCall:
    """A call as Celery's pools take it, see celery.concurrency.base.apply_target.

    on_failure: takes what is no Exception. Celery's thread pool tells nobody, and the message stays unacknowledged.
    """

    trace: Callable[..., Any]
    args: tuple[Any, ...]
    on_accepted: Callable[[int, float], None]
    on_success: Callable[[Any], None]
    on_failure: Callable[[Any], None]

    def __call__(self) -> None:
        self.on_accepted(os.getpid(), time.monotonic())
        try:
            answer = self.trace(*self.args)
        except Exception:
            raise
        except BaseException:  # noqa: BLE001  (SystemExit of a task ends the task, not the slot)
            self.on_failure(ExceptionInfo())
        else:
            self.on_success(answer)


def take_over(pool: Any, slots: Slots) -> None:
    """Have Celery's thread pool run its tasks on the slots."""

    def on_apply(
        target: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        callback: Callable[..., None],
        accept_callback: Callable[..., None],
        error_callback: Callable[..., None],
        **_: Any,
    ) -> None:
        slots.submit(TaskCall(target, args, accept_callback, callback, error_callback))

    pool.slots, pool.on_apply = slots, on_apply
