"""A paused queue stays paused, whatever is restarted: workers, broker, database, autoscaler, beat. The others' jobs go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.drills.servers import Outage, postgresql_stopped, sqlite_locked

from .drill import BOTH, drill
from .fleets import fleet
from .schedules import beats

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig, Worker

_BESIDE = "beside"  # the queue that goes on
_JOBS = 40  # for each of the two, at each restart
_TAKES_S = (0.0, 0.01)
_SETTLE_S = 4.0  # a worker puts a paused queue down within QUEUE_REFRESH_S, and ends what it has
_AWAY_S = 3.0  # of the database
_MOST = 3


@drill("pause", databases=BOTH, quick_s=600, full_s=1800)
def pause(rig: Rig) -> Outcome:
    """Each restart is followed by more jobs for both queues: the one's run, the other's wait."""
    from queue_app import queues

    from . import jobs

    queues.create_queue(_BESIDE)
    workers = [rig.worker(), rig.worker("prefork", 2)]
    rig.enqueue(100)
    rig.progress(20)
    _set_paused(True)
    rig.settle(_SETTLE_S)
    waits = _Waits(rig)
    restarts: list[tuple[str, Callable[[], object]]] = [
        ("the workers by SIGTERM", lambda: _again(rig, workers, lambda worker: worker.leave())),
        ("the workers by kill -9", lambda: _again(rig, workers, lambda worker: worker.kill())),
        ("the broker", lambda: (rig.broker.stop(), rig.broker.start())),
        ("the broker, which forgets", lambda: (rig.broker.kill(), rig.broker.forget(), rig.broker.start())),
        ("the database", lambda: _database(rig)),
    ]
    for what, restart in restarts * (1 if rig.quick else 3):
        restart()
        waits.go_on(f"a restart of {what}")
    for number in range(1 if rig.quick else 3):
        with beats(rig, 1, f"{number}"):
            _schedule(rig, f"paused {number}", jobs.QUEUE)
            _schedule(rig, f"beside {number}", _BESIDE)
            waits.go_on("a restart of beat", fired=3)
    _end_schedules()  # a trickle of jobs for the other queue may keep the autoscaler's workers
    for worker in workers:
        worker.leave()
    for _ in range(1 if rig.quick else 3):
        # Killed at its end. It is alone, as it counts others' workers in.
        with fleet(rig, 1, _MOST) as running:
            waits.go_on("a restart of the autoscaler")
            # While its first worker started, the other queue's jobs were late: it may have grown for them.
            rig.wait_for(lambda running=running: running.size() == 1, "a paused queue keeps nobody busy")
            time.sleep(_SETTLE_S)
            size = running.size()
            rig.claim(size == 1, f"the autoscaler starts none for a paused queue ({size} ran)")
    workers = [rig.worker(), rig.worker("prefork", 2)]
    waits.accept_fired()
    _set_paused(False)
    rig.blow(lambda: None, held=rig.evidence.waiting())
    rig.finish()
    once = [job for job, _ in rig.evidence.finished() if job in waits.ids]
    rig.claim(len(once) == len(waits.ids), f"each ran once ({len(once)} runs of {len(waits.ids)} jobs)")
    note = f"{len(waits.ids)} jobs of a paused queue waited through {waits.restarts} restarts; then each ran once"
    return rig.outcome(note)


class _Waits:
    """What waits in the paused queue. ids: of those that nobody had run when it was paused, and of all since."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self.restarts = rig, 0
        self.ids = rig.evidence.waiting()

    def go_on(self, what: str, fired: int = 0) -> None:
        """More jobs for both queues, and as many firings for each. The other queue's run; then look at the paused one."""
        self.restarts += 1
        rig = self._rig
        self.ids |= set(rig.enqueue(_JOBS, _TAKES_S))
        beside = set(rig.enqueue(_JOBS, _TAKES_S, queue=_BESIDE))
        before = self._fired()
        rig.until(lambda: {job for job, _ in rig.evidence.finished()} >= beside, f"others run after {what}")
        for name in ("paused", "beside") if fired else ():
            rig.until(
                lambda name=name: self._fired().get(name, 0) >= before.get(name, 0) + fired, "they fire"
            )
        self.accept_fired()
        ran = self.ids & {job for job, _ in rig.evidence.finished()}
        rig.claim(not ran, f"none of the paused queue's jobs runs after {what} ({len(ran)} did)")

    def accept_fired(self) -> None:
        """The jobs of the schedules: promised since their firing was written."""
        from queue_app.models import Firing

        found = Firing.objects.exclude(job=None).values_list("job", "schedule__name")
        new = {str(job): name for job, name in found if str(job) not in set(self._rig.accepted)}
        self._rig.accept(list(new))
        self.ids |= {job for job, name in new.items() if name.startswith("paused")}

    def _fired(self) -> dict[str, int]:
        """Firings by the queue that they are for."""
        from queue_app.models import Firing

        counted: dict[str, int] = {}
        for name in Firing.objects.values_list("schedule__name", flat=True):
            counted[name.split()[0]] = counted.get(name.split()[0], 0) + 1
        return counted


def _set_paused(paused: bool) -> None:
    from queue_app import queues

    from . import jobs

    queues.configure(jobs.QUEUE, paused=paused, actor=None, source="system")


def _schedule(rig: Rig, name: str, queue: str) -> None:
    from queue_app import schedules

    payload = {"file": str(rig.evidence.file), "takes_s": 0.0}
    schedules.create(
        name, task="drills.line", payload=payload, queue=queue, interval_s=1, actor=None, source="system"
    )


def _end_schedules() -> None:
    from queue_app import schedules
    from queue_app.models import Schedule

    for schedule in Schedule.objects.all():
        schedules.pause(schedule, actor=None, source="system")


def _again(rig: Rig, workers: list[Worker], end: Callable[[Worker], object]) -> None:
    for worker in workers:
        end(worker)
    workers[:] = [rig.worker(), rig.worker("prefork", 2)]


def _database(rig: Rig) -> None:
    is_sqlite = rig.database_url.startswith("sqlite")
    broken = sqlite_locked(rig.database_url) if is_sqlite else postgresql_stopped(rig.database_url)
    with Outage(broken, _AWAY_S):
        pass
    rig.evidence.reconnect()
