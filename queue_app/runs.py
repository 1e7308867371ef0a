"""Run: what a handler sees of its job, and what the engine knows of the run: progress, cancel, the atomic end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from . import ledger, statements
from .statements import Claimed, End
from .states import State

LOOK_S = 0.5  # `check` in a tight loop asks the database no more often


class Cancelled(Exception):
    """Somebody cancelled this job while it ran: raised by `job.check()`, and the run ends as CANCELLED."""


class FencedOut(Exception):
    """The job was given to another worker meanwhile; what this run wrote in `job.atomic()` is rolled back."""


class Run:
    """One run of a job. attempt: its number, from 1. Handlers take it as their second argument."""

    __slots__ = (
        "_looks_at", "attempt", "cancel_requested", "crash_count", "fence", "id", "is_completed", "max_attempts", "name",
        "parent", "payload", "priority", "queue", "request_id", "soft_limit_s", "suspect", "tenant", "worker",
    )  # fmt: skip

    def __init__(self, job: Claimed, worker: UUID) -> None:
        self.id, self.name, self.queue, self.tenant = job.id, job.name, job.queue, job.tenant
        self.priority, self.payload = job.priority, job.payload
        self.attempt, self.max_attempts, self.crash_count = job.attempt + 1, job.max_attempts, job.crash_count
        self.fence, self.suspect = job.fence, job.suspect
        self.request_id, self.parent = job.request_id, job.parent
        self.worker = worker
        self.cancel_requested = job.cancel_requested  # a duty of the worker raises it while the job runs
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
        now = time.monotonic()
        if not self.cancel_requested and now >= self._looks_at:
            self._looks_at = now + LOOK_S
            self.cancel_requested = _is_cancelled(self)
        if self.cancel_requested:
            raise Cancelled(str(self.id))

    def progress(self, fraction: float, note: str = "") -> None:
        """Tell how far the run is: 0 to 1, and a line of up to 200 characters. Raises Cancelled as `check` does."""
        if not 0 <= fraction <= 1:
            raise ValueError(f"progress {fraction!r} is not between 0 and 1")
        ledger.note_progress(self.id, self.fence, fraction, note[:200])
        self.check()

    @contextmanager
    def atomic(self, result: Any = None) -> Iterator[None]:
        """A transaction that commits the business writes and COMPLETED together: an exactly-once effect on this database.

        Raises FencedOut, and rolls back, when the job was given to another worker meanwhile. result: the job's, as JSON.
        """
        from .performing import storable

        with transaction.atomic():
            yield
            end = End(self.id, self.fence, State.COMPLETED, 1, storable(result))
            with connection.cursor() as cursor:
                accepted = statements.of(connection.vendor).finish(cursor, self.worker, [end])
            if not accepted:
                raise FencedOut(str(self.id))
        self.is_completed = True


def _restore(values: dict[str, Any]) -> Run:
    run: Run = Run.__new__(Run)
    for name, value in values.items():
        setattr(run, name, value)
    return run


def _is_cancelled(run: Run) -> bool:
    """Look at the row: in a pool's child no heartbeat reaches the run."""
    from .models import Job

    row = Job.objects.filter(id=run.id).values_list("cancel_requested", "fence").first()
    return row is None or row[0] or row[1] != run.fence
