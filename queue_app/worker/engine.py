"""The engine of a worker process: messages → claim in batches → run → finish in batches → acknowledge.

    strategy (Celery's loop) → inbox → the database thread: one transaction finishes and claims → runner → done → …

One thread alone claims and finishes, so a batch costs one commit; the loop and the runner's slots never wait for the
database. A message is acknowledged after the commit that records its job's end. When the database is away, the thread
tries again until it is back: what ran waits with its result, and nothing is run twice for that.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import structlog
from django.db import DatabaseError, InterfaceError, OperationalError, connection, connections

from queue_app import ledger, policies, publication, recovery
from queue_app.conf import conf
from queue_app.runs import Run
from queue_app.statements import Claimed, End
from queue_app.states import State
from queue_app.window import LONG_S, Window

log = structlog.get_logger(__name__)

T = TypeVar("T")

BATCH = 128  # claimed in one transaction at most
LARGEST_FINISH = 500
SMALL = 16  # fewer messages than this are worth a wait
GATHER = 100  # finished runs that are written at once; fewer wait PAUSE_S for company
PAUSE_S = 0.005
RETRY_S = (
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.0,
)  # between tries while the database is away; then the last one again


class Message:
    """A broker message and the callable that acknowledges it, on Celery's loop."""

    __slots__ = ("ack", "id")

    def __init__(self, id: UUID, ack: Callable[[], None]) -> None:
        self.id, self.ack = id, ack


class Done:
    """A run that has left the runner. took_s: None when it did not start."""

    __slots__ = ("end", "run", "took_s")

    def __init__(self, run: Run, end: End, took_s: float | None) -> None:
        self.run, self.end, self.took_s = run, end, took_s


class Engine:
    """One for each worker process. `runner` runs what is claimed and hands it back to `finished`."""

    def __init__(self, worker_id: UUID, *, slots: int, lease_s: float, call_soon: Callable[..., Any]) -> None:
        self.worker_id = worker_id
        self.window = Window(slots)
        self.runner: Any = None  # set by the owner, which knows the pool
        self.refused = 0  # ends that a fence did not let pass
        self.ended = 0  # runs
        self.on_turns: Callable[[set[str]], None] = (
            _nobody  # told of queues with limits where turns may be free
        )
        self._lease_s, self._call_soon = lease_s, call_soon
        self._lease_until = time.monotonic() + lease_s  # by our clock, from before the query: never too late
        self._inbox: deque[Message] = deque()
        self._done: deque[Done] = deque()
        self._crashed: deque[tuple[Run, bool]] = deque()
        self._messages: dict[UUID, Message] = {}  # of the jobs that we hold
        self._suspects: deque[Run] = deque()
        self._suspect_runs = False
        self._claimed_little_at = float("-inf")
        self._wake, self._urgent = threading.Event(), threading.Event()
        self._stopping = False
        self.turned_at = self.received_at = time.monotonic()  # the last turn, or try; and the last message
        self._thread = threading.Thread(target=self._serve, name="queue-ledger", daemon=True)

    def start(self) -> None:
        self._thread.start()

    # --- what other threads tell it ---
    def receive(self, messages: Iterable[Message]) -> None:
        self._inbox.extend(messages)
        self.received_at = time.monotonic()
        self._urgent.set()
        self._wake.set()

    def asked(self, queue: str) -> None:
        """From the strategy: jobs of the queue wait for their turns."""
        self.on_turns({queue})

    def finished(self, run: Run, end: End, took_s: float | None) -> None:
        """From the runner. An end that is PENDING and did not run gives the job back."""
        self._done.append(Done(run, end, took_s))
        if not self._wake.is_set():
            self._wake.set()

    def crashed(self, run: Run, *, ran: bool) -> None:
        """From the runner: the pool's child died under this run. ran: it had started, and is charged for it."""
        self._crashed.append((run, ran))
        self._wake.set()

    def renewed(self, began: float) -> None:
        """A heartbeat that was sent at `began` has extended the lease."""
        self._lease_until = began + self._lease_s

    def replaced(self, worker_id: UUID, began: float) -> None:
        """The old lease has ended and this process has a new row: the fences of what it held are void."""
        self.worker_id = worker_id
        self._lease_until = began + self._lease_s

    def may_start(self, run: Run) -> bool:
        """Asked by the runner right before a run: whether the job is still ours."""
        return not self._stopping and run.worker == self.worker_id and time.monotonic() < self._lease_until

    @property
    def is_alive(self) -> bool:
        """Whether the database thread runs: from `start` until everything is recorded after `close`, or it has failed."""
        return self._thread.is_alive()

    @property
    def is_closed(self) -> bool:
        return self._stopping

    @property
    def is_behind(self) -> bool:
        """Whether there is something for the database thread to do."""
        return bool(self._done or self._crashed or self._inbox and self._room() > 0)

    @property
    def held(self) -> set[UUID]:
        """Jobs claimed and not yet recorded."""
        return set(self._messages)

    def running(self) -> list[UUID]:
        found: list[UUID] = self.runner.running() if self.runner else []
        return found

    def close(self) -> None:
        """Claim and start nothing any more; what waits for a slot goes back uncharged."""
        self._stopping = True
        self._wake.set()

    def stop(self, timeout_s: float | None = None) -> bool:
        """Close, and wait until every run has ended and is recorded. Whether that was in time."""
        self.close()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self.is_alive

    # --- the database thread ---
    def _serve(self) -> None:
        try:
            while not (self._stopping and self._is_idle()):
                if not self._wake.wait(self._patience_s()):
                    self._let_go()
                self._wake.clear()
                self._gather()
                self._turn()
        finally:
            connections.close_all()

    def _patience_s(self) -> float | None:
        """How long nothing may happen until it looks by itself. None: nothing is here that could wait."""
        if self._stopping:
            return 1.0
        return LONG_S if self._messages or self._inbox else None

    def _let_go(self) -> None:
        """Give back what waits here when every slot is busy with something long: other workers may have slots that are free.

        While jobs are short a process holds hundreds. When long ones take all of its slots, these would wait for their end.
        """
        now = time.monotonic()
        if self._stopping or now - self.runner.moved_at < LONG_S:
            return
        given = self.runner.give_back()
        messages = self._unclaimed() if now - self.received_at >= LONG_S else []
        if not given and not messages:
            return
        self.window.observe(LONG_S)  # the ends of what runs will say more; until then nothing is held ahead
        log.info("jobs_let_go", claimed=given, messages=len(messages), running=len(self.running()))
        if messages:
            self._persist(lambda: publication.unpublish([message.id for message in messages]))
            self._call_soon(_acknowledge, messages)

    def _unclaimed(self) -> list[Message]:
        return [self._inbox.popleft() for _ in range(len(self._inbox))]

    def _gather(self) -> None:
        """Wait a moment for company: a turn costs the same for one job as for ten.

        Ends alone wait until a message comes. Messages that come one by one, as stock transports deliver them, wait when
        the last claim was as small and only just done: not at a rate at which anybody would notice.
        """
        if not self._inbox and len(self._done) < GATHER:
            self._urgent.wait(PAUSE_S)
        early_s = self._claimed_little_at + PAUSE_S - time.monotonic()
        if early_s > 0 and len(self._inbox) < SMALL and not self._stopping:
            time.sleep(early_s)
        self._urgent.clear()

    def _is_idle(self) -> bool:
        return not self._done and not self._crashed and not self._messages

    def _turn(self) -> None:
        self.turned_at = time.monotonic()
        while self._crashed:
            self._take_back(*self._crashed.popleft())
        messages = self._next_messages()
        done = [self._done.popleft() for _ in range(min(len(self._done), LARGEST_FINISH))]
        open_ = [entry for entry in done if not entry.run.is_completed]
        ends = [entry.end for entry in open_]
        members = {entry.run.id: entry.run.workflow for entry in open_ if entry.run.workflow is not None}
        claimed: list[Claimed] = []
        governed = policies.governed()
        if messages or ends:
            ids = [message.id for message in messages]
            claimed, accepted = self._exchange(ids, ends, members, governed)
            self.refused += len(ends) - len(accepted)
            if len(accepted) < len(ends):
                self._report_refused(ends, accepted)
        if messages and len(messages) < SMALL:
            self._claimed_little_at = time.monotonic()
        acks = self._settle(messages, done, claimed)
        if acks:
            self._call_soon(_acknowledge, acks)
        if done:
            self._learn(done)
        if governed:
            self._tell_of_turns(done, governed)
        self._start(claimed)
        if self._done or self._inbox and self._room() > 0:
            self._wake.set()

    def _next_messages(self) -> list[Message]:
        """As many as there is room for; of two for one job, the second is acknowledged at once."""
        room, seen = min(self._room(), BATCH), set[UUID]()
        found: list[Message] = []
        twice: list[Message] = []
        while self._inbox and len(found) < room and not self._stopping:
            message = self._inbox.popleft()
            if message.id in self._messages or message.id in seen:
                twice.append(message)
                continue
            seen.add(message.id)
            found.append(message)
        if twice:
            self._call_soon(_acknowledge, twice)
        return found

    def _room(self) -> int:
        return self.window.size - len(self._messages)

    def _exchange(
        self, ids: list[UUID], ends: list[End], members: dict[UUID, UUID], governed: Collection[str]
    ) -> tuple[list[Claimed], set[UUID]]:
        def write() -> tuple[list[Claimed], set[UUID]]:
            # After the lease their fences would be void: their messages come again, or the reconciler does.
            wanted = ids if time.monotonic() < self._lease_until else []
            return ledger.exchange(self.worker_id, wanted, ends, members=members, governed=governed)

        try:
            return self._persist(write)
        except DatabaseError as error:
            log.error("ledger_batch_refused", error=type(error).__name__, reason=str(error).strip()[:200])
            return self._exchange_singly(ids, ends, members, governed)

    def _exchange_singly(
        self, ids: list[UUID], ends: list[End], members: dict[UUID, UUID], governed: Collection[str]
    ) -> tuple[list[Claimed], set[UUID]]:
        """The database takes the batch under no circumstances: find the end that does not fit, and record it without."""
        write = partial(ledger.exchange, self.worker_id, members=members, governed=governed)
        accepted: set[UUID] = set()
        for end in ends:
            try:
                accepted |= self._persist(partial(write, [], [end]))[1]
            except DatabaseError:
                accepted |= self._persist(partial(write, [], [unstorable(end)]))[1]
        return self._persist(partial(write, ids, []))[0], accepted

    def _persist(self, write: Callable[[], T]) -> T:
        """The result of `write`, tried until the database takes it: it may be away, busy or in a deadlock."""
        for pause_s in itertools.chain(RETRY_S, itertools.repeat(RETRY_S[-1])):
            self.turned_at = time.monotonic()
            try:
                return write()
            except (OperationalError, InterfaceError) as error:
                reason = str(error).strip()[:200]
                log.warning("ledger_retry", error=type(error).__name__, reason=reason, pause_s=pause_s)
                connection.close()
                time.sleep(pause_s)
        raise AssertionError("unreachable")

    def _settle(self, messages: list[Message], done: list[Done], claimed: list[Claimed]) -> list[Message]:
        """Keep the messages of what is claimed; the others, and those of what is recorded, are to be acknowledged."""
        mine = {job.id for job in claimed}
        acks = []
        for message in messages:
            if message.id in mine:
                self._messages[message.id] = message
            else:
                # Taken, over, cancelled, or not due: its row says when it is published again.
                acks.append(message)
        for entry in done:
            if entry.run.suspect:
                self._suspect_runs = False
            message_of = self._messages.pop(entry.run.id, None)
            if message_of is not None:
                acks.append(message_of)
        return acks

    def _start(self, claimed: list[Claimed]) -> None:
        for job in sorted(claimed, key=lambda job: (-job.priority, job.id)):
            run = Run(job, self.worker_id)
            over = over_before_start(job)
            if over is not None:
                self.finished(run, over, None)
            elif run.suspect:
                self._suspects.append(run)
            else:
                self.runner.submit(run)
        if self._suspects and not self._suspect_runs:
            self._start_suspect(self._suspects.popleft())

    def _start_suspect(self, run: Run) -> None:
        """One at a time, and on record before it starts: if it ends this process, it is charged and nobody else is."""
        try:
            marked = not self._stopping and ledger.mark_started(run.id, run.fence)
        except (OperationalError, InterfaceError):
            connection.close()
            marked = False
        if marked:
            self._suspect_runs = True
            self.runner.submit(run)
        else:
            self.finished(run, given_back(run), None)

    def _take_back(self, run: Run, ran: bool) -> None:
        ids = [run.id]
        self._persist(
            lambda: recovery.take_back(
                run.worker, ids, ran=ids if ran else [], max_crashes=conf().MAX_CRASHES, reason="child died"
            )
        )
        if run.suspect:
            self._suspect_runs = False
        if run.queue in policies.governed():
            self.on_turns({run.queue})
        message = self._messages.pop(run.id, None)
        if message is not None:
            self._call_soon(_acknowledge, [message])

    def _tell_of_turns(self, done: list[Done], governed: Collection[str]) -> None:
        ended = {entry.run.queue for entry in done if entry.run.queue in governed}
        if ended:
            self.on_turns(ended)

    def _learn(self, done: list[Done]) -> None:
        took = [entry.took_s for entry in done if entry.took_s is not None]
        self.ended += len(took)
        if took:
            self.window.observe(sum(took) / len(took))

    def _report_refused(self, ends: list[End], accepted: Collection[UUID]) -> None:
        for end in ends:
            if end.id not in accepted:
                log.warning("job_result_refused", job_id=str(end.id), state=str(end.state), fence=end.fence)


def given_back(run: Run) -> End:
    """It was claimed and did not start: it waits again, uncharged."""
    return End(run.id, run.fence, State.PENDING, 0, detail='{"reason": "given back"}')


def over_before_start(job: Claimed) -> End | None:
    """How a job ends that was cancelled while it waited, or whose time to start has passed."""
    if job.cancel_requested or job.expired:
        reason = "cancelled" if job.cancel_requested else "expired"
        return End(job.id, job.fence, State.CANCELLED, 0, detail=f'{{"reason": "{reason}"}}')
    return None


def _nobody(queues: set[str]) -> None:
    """Until there is a governor."""


def unstorable(end: End) -> End:
    """The same end without the values that the handler chose."""
    error = None if end.error is None else '{"type": "Unstorable", "message": "", "traceback": ""}'
    return end._replace(
        result=None, error=error, detail='{"reason": "its result or error could not be stored"}'
    )


def _acknowledge(messages: list[Message]) -> None:
    for message in messages:
        message.ack()
