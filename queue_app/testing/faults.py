"""What can go wrong with a run, as it goes wrong in a worker: it acts on drain, perform and eager runs, and history shows it.

Each is a context manager. target: as of `enqueue`, or a job; None: whatever runs. times: so many runs, then no more; None: all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from queue_app import ledger, reconciler, registry, workers
from queue_app.clock import Clock
from queue_app.inline import Fault, InlineWorker
from queue_app.models import Job, Worker
from queue_app.runs import Run

from .expectation import task_of
from .replacing import replaced


@contextmanager
def fail(
    target: Any, error: BaseException | type[BaseException], *, times: int | None = None
) -> Iterator[None]:
    """The handler is not called and raises `error`. A job's, or a task's; a worker in this process meets it as well."""
    task = registry.find(target.name) if isinstance(target, Job) else task_of(target)
    hits, perform = _Hits(target, times), task.perform

    def raising(run: Run) -> Any:
        if hits.take(run):
            raise error
        return perform(run)

    with replaced(task, "perform", raising):
        yield


@contextmanager
def crash(
    target: Any = None, *, at: Literal["start", "end"] = "start", times: int | None = None
) -> Iterator[None]:
    """The worker dies: before the handler does anything, or when it has done all and nothing is recorded ("end"). Its lease
    ends, and another one takes the job back: charged one crash, and a dead letter after MAX_CRASHES.

    What the handler has written stays, as it does without a transaction; `job.atomic()` has ended the job before the end.
    """
    if at not in ("start", "end"):
        raise ValueError(f"at = {at!r} is neither 'start' nor 'end'")
    with _meeting(_Crash(_Hits(target, times), at)):
        yield


@contextmanager
def lost_lease(target: Any = None, *, times: int | None = None) -> Iterator[None]:
    """The worker is taken for dead while it runs the job, which is given back, charged one crash: the run goes on, and its
    end is refused; `job.atomic()` in it is rolled back.
    """
    with _meeting(_LostLease(_Hits(target, times))):
        yield


@dataclass
class Deliveries:
    """messages: that came too many. runs: that they have led to."""

    messages: int = 0
    runs: list[UUID] = field(default_factory=list)


@contextmanager
def deliver_twice(target: Any = None, *, times: int | None = None) -> Iterator[Deliveries]:
    """The job's message comes once more, to another worker, while it runs: the ledger gives that one nothing."""
    found = Deliveries()
    with _meeting(_Twice(_Hits(target, times), found)):
        yield found


class _Hits:
    """Which runs are meant."""

    def __init__(self, target: Any, times: int | None) -> None:
        if times is not None and (isinstance(times, bool) or not isinstance(times, int) or times < 0):
            raise ValueError(f"times = {times!r} is not a whole number of runs")
        self._left = times
        self._id = target.id if isinstance(target, Job) else None
        self._name = None if target is None or self._id else task_of(target).name

    def take(self, run: Run) -> bool:
        if self._left == 0 or self._id not in (None, run.id) or self._name not in (None, run.name):
            return False
        self._left = None if self._left is None else self._left - 1
        return True


@contextmanager
def _meeting(fault: Fault) -> Iterator[None]:
    InlineWorker.faults.append(fault)
    try:
        yield
    finally:
        InlineWorker.faults.remove(fault)


@dataclass(eq=False)
class _Crash:
    hits: _Hits
    at: str

    def before(self, worker: InlineWorker, run: Run) -> bool:
        return self.at == "start" and self._dies(worker, run)

    def after(self, worker: InlineWorker, run: Run) -> bool:
        return self.at == "end" and self._dies(worker, run)

    def _dies(self, worker: InlineWorker, run: Run) -> bool:
        if not self.hits.take(run):
            return False
        _end_lease(worker, run)
        return True


@dataclass(eq=False)
class _LostLease:
    hits: _Hits

    def before(self, worker: InlineWorker, run: Run) -> bool:
        if self.hits.take(run):
            _end_lease(worker, run)
        return False

    def after(self, worker: InlineWorker, run: Run) -> bool:
        return False


@dataclass(eq=False)
class _Twice:
    hits: _Hits
    found: Deliveries

    def before(self, worker: InlineWorker, run: Run) -> bool:
        if self.hits.take(run):
            other = workers.register(pool="another", concurrency=1, queues=[run.queue])
            self.found.messages += 1
            self.found.runs += [job.id for job in ledger.exchange(other.id, [run.id], [])[0]]
            workers.leave(other.id)
        return False

    def after(self, worker: InlineWorker, run: Run) -> bool:
        return False


def _end_lease(worker: InlineWorker, run: Run) -> None:
    """Its last heartbeat named the job, and then it was silent for too long; `worker` goes on as another one."""
    Worker.objects.filter(id=worker.id).update(running=[str(run.id)], lease_until=Clock())
    reconciler.release_lost()
    worker.register()
