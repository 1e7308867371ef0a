"""A worker without a process, a pool or a broker: it runs jobs one by one on the thread, and the connections, of its caller.

    register → claim → run → finish → … → leave

By the functions of the real one: fences, history, retries, turns and workflows are as ever. Eager mode and queue_app.testing
stand on it. Inside somebody's transaction it sees what that has written, and what it does goes with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from contextvars import Context
from typing import Any, ClassVar, NamedTuple, Protocol
from uuid import UUID

import structlog
from django.db import DatabaseError, connections, transaction

from foundation import request_id as request_ids

from . import async_loop, governor, ledger, limits, lineage, performing, policies, queues, registry, workers
from .conf import conf
from .models import Worker
from .registry import UnknownTask
from .runs import Run
from .statements import Claimed, End
from .states import State
from .worker.engine import given_back, over_before_start, unstorable

log = structlog.get_logger(__name__)

_PASSING = "eager"  # a row for each commit is nothing to keep


class Ran(NamedTuple):
    """A run that is over. state: where the job went; None: its end was refused, or the worker died before it.

    error: what the handler raised.
    """

    job: Claimed
    state: State | None
    error: BaseException | None
    died: bool = False


class Fault(Protocol):
    """What goes wrong with a run, as queue_app.testing has it."""

    def before(self, worker: InlineWorker, run: Run) -> bool:
        """Claimed, and about to run. Whether the worker dies here."""

    def after(self, worker: InlineWorker, run: Run) -> bool:
        """The handler has ended, and nothing is recorded yet. Whether the worker dies here."""


class InlineWorker:
    """Use it as a context. pool: what its row says."""

    faults: ClassVar[list[Fault]] = []  # of queue_app.testing alone

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._renew_at = 0.0
        self.id = UUID(int=0)

    def __enter__(self) -> InlineWorker:
        policies.by_name(fresh=True)
        self.register()
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(DatabaseError):  # inside a transaction that is broken: its row goes with that
            workers.leave(self.id)
            if self._pool == _PASSING:
                Worker.objects.filter(id=self.id).delete()

    def register(self) -> None:
        """A row of its own, with a new lease: what it held before is not its own any more."""
        self.id = workers.register(pool=self._pool, concurrency=1, queues=sorted(queues.consumable())).id
        self._renew_at = time.monotonic() + conf().LEASE_S / 3

    def run(self, job_id: UUID) -> Ran | None:
        """Run this job; None when it is not to be had: over, held by another, not due, or without a turn."""
        self._keep_lease()
        claimed = ledger.exchange(self.id, [job_id], [], governed=policies.governed())[0]
        if not claimed:
            return None
        job, heard = claimed[0], list[BaseException]()
        run = Run(job, self.id)
        end = over_before_start(job) or self._performed(run, heard.append)
        if heard and isinstance(heard[-1], KeyboardInterrupt) and not run.is_completed:
            self._record(run, given_back(run))
            raise heard[-1]  # Ctrl-C means whoever runs the jobs, and none of them
        if run.is_completed:
            return Ran(job, State.COMPLETED, None)
        state = self._record(run, end) if end is not None else None
        return Ran(job, state, heard[-1] if heard else None, died=end is None)

    def hand_out(self, queue: str) -> int:
        """Turns of a queue with limits, as for one worker with one slot. How many."""
        known = policies.known().get(queue)
        if known is None or queue not in policies.governed():
            return 0
        return governor.hand_out(known, slots=1).granted

    def _keep_lease(self) -> None:
        """A handler may have taken longer than a lease lasts, or a test has moved the clock on."""
        if time.monotonic() >= self._renew_at or not workers.living().filter(id=self.id).exists():
            if workers.beat(self.id, sorted(queues.consumable()), ()):
                self._renew_at = time.monotonic() + conf().LEASE_S / 3
            else:
                self.register()

    def _performed(self, run: Run, tell: Tell) -> End | None:
        """None: the worker died of it."""
        if run.suspect and not ledger.mark_started(run.id, run.fence):
            return given_back(run)
        if any(fault.before(self, run) for fault in self.faults):
            return None
        limit_s, is_async = _soft_limit(run)
        run.soft_limit_s = None if is_async else limit_s
        with _kept_whole() as hooks:
            # A context of its own, as in a worker: neither the caller's language, time zone or log fields, nor his job.
            end = Context().run(_perform, run, limit_s, tell)
        end = Context().run(_after_commit, run, end, hooks, tell)
        return None if any(fault.after(self, run) for fault in self.faults) else end

    def _record(self, run: Run, end: End) -> State | None:
        members = {} if run.workflow is None else {run.id: run.workflow}
        try:
            with transaction.atomic():
                accepted = ledger.exchange(self.id, [], [end], members=members)[1]
        except DatabaseError:
            with transaction.atomic():
                accepted = ledger.exchange(self.id, [], [unstorable(end)], members=members)[1]
        if not accepted:
            log.warning("job_result_refused", job_id=str(end.id), state=str(end.state), fence=end.fence)
        return State(end.state) if accepted else None


Tell = Callable[[BaseException], None]
Hooks = list[Callable[[], Any]]


def _perform(run: Run, limit_s: float | None, tell: Tell) -> End:
    with async_loop.inline(limit_s):
        return performing.perform(run, tell)


@contextmanager
def _kept_whole() -> Iterator[Hooks]:
    """A worker's handlers begin outside of any transaction. Inside one of the caller's, a statement that fails must not end
    that: then what the handler wrote is rolled back. Yields, filled at the end, the `on_commit` hooks that it has left.
    """
    open_ = [known for known in connections.all(initialized_only=True) if known.in_atomic_block]
    before = [len(known.run_on_commit) for known in open_]
    blocks, hooks = [transaction.atomic(using=known.alias) for known in open_], Hooks()
    for block in blocks:
        block._from_testcase = True  # for the handler it is not there: `atomic(durable=True)` is right in it
        block.__enter__()
    try:
        yield hooks
    except BaseException as error:
        for block in reversed(blocks):
            block.__exit__(type(error), error, error.__traceback__)
        raise
    for block in reversed(blocks):
        with suppress(DatabaseError):  # PostgreSQL, whose transaction had failed: it was rolled back to here
            block.__exit__(None, None, None)
    for known, count in zip(open_, before, strict=True):
        hooks += [_shielded(hook) if robust else hook for _, hook, robust in known.run_on_commit[count:]]
        del known.run_on_commit[count:]


def _after_commit(run: Run, end: End, hooks: Hooks, tell: Tell) -> End:
    """Run them now, as in a worker, where nothing is around the handler: an exception there is the handler's own."""
    try:
        with lineage.running(run.id), request_ids.bound(run.request_id) if run.request_id else nullcontext():
            for hook in hooks:
                hook()
    except Exception as error:  # noqa: BLE001  (whatever a hook raises would have left the handler)
        tell(error)
        return end if run.is_completed else performing.failed(run, error)
    return end


def _shielded(hook: Callable[[], Any]) -> Callable[[], None]:
    def call() -> None:
        try:
            hook()
        except Exception:  # as Django's: it was to be robust
            log.exception("hook_failed")

    return call


def _soft_limit(run: Run) -> tuple[float | None, bool]:
    """And whether the handler is a coroutine function. The hard limit needs a process that can be killed."""
    try:
        task = registry.find(run.name)
    except UnknownTask:  # it will be parked
        return None, False
    queue = policies.known().get(run.queue)
    found = limits.resolve(task, queue, soft_s=conf().SOFT_TIME_LIMIT_S, hard_s=conf().TIME_LIMIT_S)
    return found.soft_s, task.is_async
