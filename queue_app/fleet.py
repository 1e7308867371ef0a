"""The worker processes of `manage.py queue autoscale`: as many as autoscale.py wants, each an ordinary worker.

    look at the queues → wanted → start · ask the newest to stop (SIGTERM: they finish what they run) · replace the fallen

Every worker is its own process and holds its own lease: when the fleet's process dies, they go on. A fleet that is started
anew sees them as workers of others, and starts fewer of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import structlog
from django.db import DatabaseError, connections
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from . import policies, queues, stats, tenants, turns, wakeup, workers
from .autoscale import Autoscaler, Sight
from .conditions import backlog, is_due
from .conf import conf
from .states import Turn

log = structlog.get_logger(__name__)

_MOST_COUNTED = 100_000  # jobs: more make no difference, and counting them would
_BACKOFF_S = (
    1.0,
    2.0,
    5.0,
    15.0,
    30.0,
)  # before a worker that ended by itself is replaced; then the last one again
_HEALTHY_S = 60.0  # a worker that has run this long ends the series
_KILL_S = 15.0  # after WARM_STOP_S, before a worker that was asked to stop is killed

Say = Callable[[str], None]


@dataclass
class Process:
    """A worker that this fleet has started."""

    popen: subprocess.Popen[bytes]
    started_at: float
    asked_at: float | None = field(default=None)  # to stop

    @property
    def has_ended(self) -> bool:
        return self.popen.poll() is not None


class Fleet:
    """command: of one worker; its number is appended as `--name`. names: the queues that it serves; none: every queue."""

    def __init__(self, command: Sequence[str], scaler: Autoscaler, names: Collection[str], say: Say) -> None:
        self._command, self._scaler, self._names, self._say = list(command), scaler, set(names), say
        self._numbers = itertools.count(1)
        self._processes: list[Process] = []
        self._falls, self._not_before = 0, 0.0
        self._fallen: set[int] = set()  # process ids whose rows still have a lease
        self._wanted = self._others = 0
        self._stopping = threading.Event()

    def stop(self) -> None:
        """`run` ends as soon as the workers have."""
        self._stopping.set()

    def run(self, every_s: float) -> None:
        """Until `stop`; then every worker is asked to stop, and waited for."""
        try:
            while not self._stopping.is_set():
                self.look()
                self._stopping.wait(every_s)
        finally:
            self._end()

    def look(self) -> None:
        """Once: see how it stands, and bring the fleet to its size."""
        self._bury()
        sight = self._sight()
        if sight is not None:
            self._tell_of_others(sight.processes - len(self.working))
            wanted = self._scaler.wanted(sight)
            # The others' are part of what is there: they are not ours to stop.
            self._resize(max(0, wanted - (sight.processes - len(self.working))), sight)
        self._replace()
        self._kill_late()

    @property
    def working(self) -> list[Process]:
        """Those that were not asked to stop."""
        return [process for process in self._processes if process.asked_at is None]

    # --- see ---
    def _sight(self) -> Sight | None:
        """None when nobody can say now."""
        try:
            ours = {process.popen.pid for process in self.working}
            return sight_of(self._names, ours=ours, gone=self._fallen | self._ending)
        except DatabaseError as error:
            log.warning("autoscale_without_a_look", error=type(error).__name__)
            return None
        finally:
            connections.close_all()

    @property
    def _ending(self) -> set[int]:
        """Process ids of ours that were asked to stop: they take no more jobs, and are nobody else's workers."""
        return {process.popen.pid for process in self._processes if process.asked_at is not None}

    # --- act ---
    def _tell_of_others(self, others: int) -> None:
        """They are why it may start fewer than it was told, or none."""
        if others != self._others:
            self._others = others
            self._say(f"workers of others that serve these queues, and count: {others}")

    def _resize(self, size: int, sight: Sight) -> None:
        before, self._wanted = self._wanted, size
        if size != before:
            self._say(
                f"{before} → {size} workers: {sight.backlog} wait, the oldest for {sight.oldest_s:.1f} s"
            )
        for process in self.working[size:]:
            process.asked_at = time.monotonic()
            process.popen.send_signal(signal.SIGTERM)

    def _replace(self) -> None:
        """Have as many as are wanted. Workers that fall one after another are not started without a pause."""
        if time.monotonic() < self._not_before:
            return
        while len(self.working) < self._wanted:
            name = f"fleet{os.getpid()}-{next(self._numbers)}@%h"
            popen = subprocess.Popen([*self._command, "--name", name])
            self._fallen.discard(popen.pid)  # the system gives numbers out again
            self._processes.append(Process(popen, time.monotonic()))

    def _bury(self) -> None:
        for process in [process for process in self._processes if process.has_ended]:
            self._processes.remove(process)
            if process.asked_at is None:
                self._mourn(process)

    def _mourn(self, process: Process) -> None:
        lived_s = time.monotonic() - process.started_at
        self._fallen.add(process.popen.pid)
        self._falls = 1 if lived_s > _HEALTHY_S else self._falls + 1
        pause_s = _BACKOFF_S[min(self._falls, len(_BACKOFF_S)) - 1]
        self._not_before = time.monotonic() + pause_s
        self._say(
            f"worker {process.popen.pid} ended with {process.popen.returncode}; another in {pause_s:g} s"
        )

    def _kill_late(self) -> None:
        late = time.monotonic() - conf().WARM_STOP_S - _KILL_S
        for process in self._processes:
            if process.asked_at is not None and process.asked_at < late:
                process.popen.kill()

    def _end(self) -> None:
        self._wanted = 0
        for process in self.working:
            process.asked_at = time.monotonic()
            process.popen.send_signal(signal.SIGTERM)
        while self._processes:
            for process in list(self._processes):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.popen.wait(0.2)
            self._bury()
            self._kill_late()


def sight_of(names: Collection[str], *, ours: Collection[int] = (), gone: Collection[int] = ()) -> Sight:
    """How the queues stand, and the workers that serve any of them. names: none means all. ours: process ids of this host's workers that count, with a row or
    still without. gone: of those that are dead or end, whatever their leases say.

    Raises DatabaseError. A broker that does not answer counts as empty: the ledger's jobs are known without it.
    """
    chosen = set(names) or queues.consumable()
    paused = {name for name, queue in policies.by_name(fresh=True).items() if queue.paused}
    chosen -= paused
    held_back, paused_jobs = _held_back(chosen), tenants.paused_jobs()
    due = (
        backlog().filter(is_due(), queue__in=chosen).exclude(queue__in=held_back, turn=Turn.WAITS).order_by()
    )
    due = due.exclude(paused_jobs) if paused_jobs else due
    counted = len(due.values_list("id", flat=True)[:_MOST_COUNTED])
    oldest = stats.oldest_due_s(but=paused_jobs)
    # In one look: a worker that comes up between two would count as one that starts and as one that is there.
    living = workers.living().exclude(host=socket.gethostname(), pid__in=gone)
    rows = living.values_list("host", "pid", "ended", "queues")
    there = [row for row in rows if (set(row[3]) & set(names) if names else row[3])]
    here = {pid for host, pid, *_ in there if host == socket.gethostname()}
    return Sight(
        at=time.monotonic(),
        backlog=max(counted, _messages(chosen)),
        oldest_s=max((oldest.get(name, 0.0) for name in chosen - held_back), default=0.0),
        ended=sum(ended for _, _, ended, _ in there),
        processes=len(there) + len(set(ours) - here),
    )


def _held_back(names: Collection[str]) -> set[str]:
    """Those whose jobs wait for their limits while slots are free: more workers would wait with them."""
    slots = workers.slots()
    limited = (name for name in names if name in policies.with_few_turns() and turns.is_awaited(name))
    # The governor gives turns to all slots and a few more, where the limits let it.
    return {
        name for name in limited if sum(held.jobs for held in turns.held(name).values()) < slots.get(name, 0)
    }


def _messages(names: Collection[str]) -> int:
    """Plain tasks have no row before they have run; the ledger's wake-ups are among these, so the larger number counts."""
    try:
        return sum(wakeup.depths(names).values())
    except (RedisError, KombuError, OSError):
        return 0
