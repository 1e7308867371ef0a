"""Run: what a handler sees of its job, and what the engine knows of the run: progress, cancel, the atomic end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import transaction

from . import failures, ledger
from .statements import Claimed

_LONGEST_NOTE = 200
LOOK_S = 0.5  # `check` in a tight loop asks the database no more often
ATOMIC_INSTEAD = "a sync handler, as a transaction belongs to one thread and its connection"


class Cancelled(Exception):
    """Somebody cancelled this job while it ran: raised by `job.check()`, and the run ends as CANCELLED."""


class FencedOut(Exception):
    """The job was given to another worker meanwhile; what this run wrote in `job.atomic()` is rolled back."""


class Run:
    """One run of a job. attempt: its number, from 1. Handlers take it as their second argument."""

    __slots__ = (
        "_looks_at", "attempt", "cancel_is_told", "cancel_requested", "crash_count", "fence", "id", "is_completed", "max_attempts", "name",
        "parent", "payload", "priority", "queue", "request_id",
        "soft_limit_s", "suspect", "tenant", "worker", "workflow",
    )  # fmt: skip

    def __init__(self, job: Claimed, worker: UUID) -> None:
        self.id, self.name, self.queue, self.tenant = job.id, job.name, job.queue, job.tenant
        self.priority, self.payload = job.priority, job.payload
        self.attempt, self.max_attempts, self.crash_count = job.attempt + 1, job.max_attempts, job.crash_count
        self.fence, self.suspect = job.fence, job.suspect
        self.request_id, self.parent, self.workflow = job.request_id, job.parent, job.workflow
        self.worker = worker
        self.cancel_requested = job.cancel_requested  # a duty of the worker raises it while the job runs
        self.cancel_is_told = (
            False  # `acheck` has raised: the coroutine cleans up, and is not cancelled on top
        )
        self.is_completed = False
        self.soft_limit_s: float | None = None  # set by the runner
        self._looks_at = 0.0  # at the row; by time.monotonic()

    def __repr__(self) -> str:
        return f"<run {self.attempt} of {self.name} {self.id}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """To a child of the pool."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return _restore, (values,)

    def check(self) -> None:
        """Call it now and then in a long run. Raises Cancelled when somebody cancelled the job."""
        refuse_on_loop("check", "await job.acheck()")
        if self._may_look() and self._look():
            self.cancel_requested = True
        if self.cancel_requested:
            raise Cancelled(str(self.id))

    async def acheck(self) -> None:
        """`check` for an `async def` handler: the database is asked on the job's own thread."""
        if self._may_look() and await sync_to_async(self._look)():
            self.cancel_requested = True
        if self.cancel_requested:
            self.cancel_is_told = True
            raise Cancelled(str(self.id))

    def progress(self, fraction: float, note: str = "") -> None:
        """Tell how far the run is: 0 to 1, and a line of up to 200 characters. Raises Cancelled as `check` does."""
        refuse_on_loop("progress", "await job.aprogress(…)")
        self._note(_fraction(fraction), note)
        self.check()

    async def aprogress(self, fraction: float, note: str = "") -> None:
        """`progress` for an `async def` handler."""
        await sync_to_async(self._note)(_fraction(fraction), note)
        await self.acheck()

    def previous_results(self) -> list[Any]:
        """What the jobs of its workflow have answered for which this one waited, in their order.

        For a batch's callback: what all of the batch's completed jobs have. Empty for a job that waited for none.
        """
        from .workflows import results_before

        refuse_on_loop("previous_results", "await job.aprevious_results()")
        return results_before(self.id)

    async def aprevious_results(self) -> list[Any]:
        """`previous_results` for an `async def` handler."""
        from .workflows import results_before

        return await sync_to_async(results_before)(self.id)

    def previous_result(self) -> Any:
        """The one before's in a chain; None when there is none or it answered nothing."""
        return next(iter(self.previous_results()), None)

    @contextmanager
    def atomic(self, result: Any = None) -> Iterator[None]:
        """A transaction that commits the business writes and COMPLETED together: an exactly-once effect on this database.

        Raises FencedOut, and rolls back, when the job was given to another worker meanwhile. result: the job's, as JSON.
        """
        from .performing import completed

        refuse_on_loop("atomic", ATOMIC_INSTEAD)
        with transaction.atomic():
            yield
            if not ledger.finish(self.worker, completed(self, result), self.workflow):
                raise FencedOut(str(self.id))
        self.is_completed = True

    def _may_look(self) -> bool:
        now = time.monotonic()
        if self.cancel_requested or now < self._looks_at:
            return False
        self._looks_at = now + LOOK_S
        return True

    def _look(self) -> bool:
        """Whether the row says cancelled: in a pool's child no heartbeat reaches the run."""
        from .models import Job

        row = Job.objects.filter(id=self.id).values_list("cancel_requested", "fence").first()
        return row is None or row[0] or row[1] != self.fence

    def _note(self, fraction: float, note: str) -> None:
        ledger.note_progress(self.id, self.fence, fraction, failures.clean(note[:_LONGEST_NOTE]))


def _restore(values: dict[str, Any]) -> Run:
    run: Run = Run.__new__(Run)
    for name, value in values.items():
        setattr(run, name, value)
    return run


def _fraction(given: float) -> float:
    if not 0 <= given <= 1:
        raise ValueError(f"progress {given!r} is not between 0 and 1")
    return given


def refuse_on_loop(method: str, instead: str) -> None:
    """Also between two looks, when nothing would ask the database: what works now and then is found late."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise SynchronousOnlyOperation(f"job.{method}() cannot be called on the event loop: use {instead}")
