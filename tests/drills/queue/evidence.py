"""What the ledger and the traces say, read by the drill's own Django. Imported once that is set up."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from django.core.management import call_command
from django.db import DatabaseError, InterfaceError, connection
from django.db.models import Q

from queue_app import enqueue_many, wakeup
from queue_app.clock import Clock
from queue_app.models import Job, JobEvent, Worker
from queue_app.publication import Wakeup
from tests.drills.verdict import Fate

from . import jobs

T = TypeVar("T")

_OPEN = ("PENDING", "PROCESSING", "FAILED")
_PATIENCE_S = 60.0  # of a look at a database that a drill has stopped


class Evidence:
    errors = (DatabaseError, InterfaceError)  # of a database that is away

    def __init__(self, file: Path) -> None:
        self.file = file
        self.file.touch()

    def prepare(self) -> None:
        call_command("migrate", verbosity=0)
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE TABLE drill_effect (job varchar(36) NOT NULL, fence int NOT NULL, at double precision)"
            )

    # --- enqueue ---
    def enqueue(self, target: Any, payload: dict[str, Any], count: int, **options: Any) -> list[str]:
        """Their ids, once enqueue_many has returned."""
        payload = {"file": str(self.file)} | payload
        return [str(job.id) for job in enqueue_many(target, [payload] * count, **options)]

    def mixed(self, count: int, takes_s: tuple[float, float], **options: Any) -> list[str]:
        """Half of them leave a row in `job.atomic()`, half a line outside."""
        ids: list[str] = []
        size = max(5, min(100, count // 20))
        for turn, number in enumerate(range(0, count, size)):
            target = jobs.effect if turn % 2 else jobs.line
            takes = {"takes_s": round(random.uniform(*takes_s), 4)}
            ids += self.enqueue(target, takes, min(size, count - number), **options)
        return ids

    def republish(self, ids: list[str], times: int) -> None:
        rows = Job.objects.filter(id__in=ids).values_list("id", "queue", "priority")
        for _ in range(times):
            wakeup.publish([Wakeup(*row) for row in rows])

    def broker(self, count: int, takes_s: tuple[float, float]) -> list[str]:
        """Plain Celery tasks; their ids, each once `delay` has returned."""
        takes = [round(random.uniform(*takes_s), 4) for _ in range(count)]
        return [jobs.broker_line.delay(str(self.file), seconds).id for seconds in takes]

    def reconnect(self) -> None:
        connection.close()

    # --- look ---
    def open_jobs(self) -> int:
        return _patiently(lambda: Job.objects.filter(state__in=_OPEN).count())

    def waiting(self) -> set[str]:
        jobs = Job.objects.filter(state__in=("PENDING", "FAILED"))
        return _patiently(lambda: {str(id) for id in jobs.values_list("id", flat=True)})

    def worker_of(self, pid: int) -> bool:
        """It has a row, and the row a lease."""
        return _patiently(lambda: Worker.objects.filter(pid=pid, lease_until__gt=Clock()).exists())

    def held_by(self, pid: int) -> set[str]:
        """What the ledger says the process holds."""

        def look() -> set[str]:
            mine = Worker.objects.filter(pid=pid).values("id")
            held = Job.objects.filter(state="PROCESSING", owner__in=mine)
            return {str(id) for id in held.values_list("id", flat=True)}

        return _patiently(look)

    def recorder(self) -> int | None:
        """The PID of the worker that records; None while nobody does."""
        from queue_app.models import Lease

        def look() -> int | None:
            lease = Lease.objects.filter(name="recorder", until__gt=Clock()).first()
            return lease and Worker.objects.filter(id=lease.holder).values_list("pid", flat=True).first()

        return _patiently(look)

    def run_by(self, pid: int) -> int:
        """Jobs that the process has completed."""

        def look() -> int:
            mine = list(Worker.objects.filter(pid=pid).values_list("id", flat=True))
            return JobEvent.objects.filter(state="COMPLETED", worker__in=mine).count()

        return _patiently(look)

    def state(self, id: str) -> str:
        return _patiently(lambda: Job.objects.values_list("state", flat=True).get(id=id))

    def effects(self) -> list[tuple[str, float]]:
        def look() -> list[tuple[str, float]]:
            with connection.cursor() as cursor:
                cursor.execute("SELECT job, at FROM drill_effect")
                return [(job, at) for job, at in cursor.fetchall()]

        return _patiently(look)

    def lines(self) -> list[tuple[str, int, float]]:
        parts = (line.split() for line in self.file.read_text().splitlines())
        return [(job, int(fence), float(at)) for job, fence, at in parts]

    def finished(self) -> list[tuple[str, float]]:
        """(id, monotonic seconds) of every piece of work that left evidence."""
        return self.effects() + [(job, at) for job, _, at in self.lines()]

    def done(self) -> int:
        return len(self.finished())

    def fates(self, with_steps: bool = True) -> list[Fate]:
        alive = list(Worker.objects.filter(lease_until__gt=Clock()).values_list("id", flat=True))
        orphans = set(
            Job.objects.filter(state="PROCESSING").filter(~Q(owner__in=alive)).values_list("id", flat=True)
        )
        steps: dict[UUID, list[str]] = {}
        if with_steps:
            columns = ("job_id", "state", "worker", "detail")
            claims: dict[UUID, UUID | None] = {}  # by whom the job was claimed, while that was its last step
            for job, state, worker, detail in JobEvent.objects.order_by("id").values_list(*columns):
                # It stays where it is: in a higher class, or held no more.
                if detail.get("action") in ("aged", "released"):
                    continue
                if state == "PROCESSING" and worker is not None and claims.get(job) == worker:
                    continue  # claimed again by its owner, see states.may_be_claimed
                claims[job] = worker if state == "PROCESSING" else None
                steps.setdefault(job, []).append(state)
        rows = Job.objects.values_list("id", "state", "crash_count", "delivery")
        return [
            Fate(
                str(id),
                state,
                crashes,
                tuple(steps.get(id, ())) if with_steps and delivery == "ledger" else None,
                id in orphans,
            )
            for id, state, crashes, delivery in rows
        ]

    def states(self) -> dict[str, int]:
        """Jobs by state, for a message about a drill that did not end."""
        counted: dict[str, int] = {}
        with contextlib.suppress(DatabaseError):
            for state in Job.objects.values_list("state", flat=True):
                counted[state] = counted.get(state, 0) + 1
        return counted


def _patiently(look: Callable[[], T]) -> T:
    """The database may be away, because the drill has taken it away."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return look()
        except Evidence.errors:
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
