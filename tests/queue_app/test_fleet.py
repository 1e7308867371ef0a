"""`manage.py queue autoscale` with real workers: up with a backlog, down without one, and whole again after a kill."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from queue_app import enqueue_many, policies, queues, tenants, wakeup, workers
from queue_app import fleet as fleets
from queue_app.autoscale import Autoscaler, Goal, Sight
from queue_app.fleet import Fleet, sight_of
from queue_app.governor import hand_out
from queue_app.models import Job, Worker
from queue_app.testing import no_broker
from tests import warm

from .conftest import ROOT, WorkerProcess, environment, until
from .jobs_app import tasks

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

START_S = 60.0  # for processes that import Django, on a busy machine
AUTOSCALE = ["manage.py", "queue", "-c", "1", "autoscale", "--latency", "1", "--hold", "3", "--every", "0.3"]


@pytest.fixture
def nothing_published() -> Iterator[None]:
    with no_broker():
        yield


@pytest.fixture
def start_fleet(tmp_path: Path, empty_valkey: None) -> Iterator[Callable[..., WorkerProcess]]:
    started: list[WorkerProcess] = []

    def start(*arguments: str) -> WorkerProcess:
        fleet = WorkerProcess([*AUTOSCALE, *arguments], tmp_path / f"fleet-{len(started)}.log", environment())
        started.append(fleet)
        return fleet

    yield start
    for fleet in started:
        fleet.kill()


@pytest.mark.drilled("autoscale")
def test_autoscale__a_burst__grows_runs_every_job_once_shrinks_and_ends_in_order(
    start_fleet: Callable[..., WorkerProcess], file: Path
) -> None:
    fleet = start_fleet("--min", "1", "--max", "3")
    until(lambda: workers.alive() == 1, "one worker", START_S)
    enqueue_many(tasks.trace, [{"file": str(file), "number": n, "takes_s": 0.1} for n in range(300)])
    until(lambda: workers.alive() == 3, "as many as may be", START_S)
    until(lambda: Job.objects.filter(state="COMPLETED").count() == 300, "all jobs end", START_S)
    until(lambda: workers.alive() == 1, "one is left", START_S)
    assert sorted(map(int, file.read_text().split())) == list(range(300))
    assert "→ 3 workers" in fleet.log or "→ 2 workers" in fleet.log
    assert fleet.terminate(START_S) == 0
    assert workers.alive() == 0


def test_autoscale__a_worker_is_killed__another_takes_its_place(
    start_fleet: Callable[..., WorkerProcess],
) -> None:
    fleet = start_fleet("--min", "1", "--max", "1")
    first = until(lambda: workers.living().first(), "one worker", START_S)
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: f"worker {first.pid} ended with -9" in fleet.log, "its end is noticed", START_S)
    until(lambda: workers.living().exclude(pid=first.pid).exists(), "another", START_S)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--min", "3", "--max", "2"], "from 3 to 2 is no range of processes"),
        (["--latency", "0"], "latency 0 s is not a positive number"),
        (["--every", "-1"], "every -1 s is not a positive number"),
    ],
)
def test_autoscale__numbers_that_cannot_be__says_so_and_starts_nothing(
    arguments: list[str], said: str
) -> None:
    done = warm.run(
        [sys.executable, "manage.py", "queue", "autoscale", *arguments],
        cwd=ROOT,
        env=os.environ | environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_replace__workers_that_end_at_once__are_not_started_without_a_pause(
    empty_valkey: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleets, "_BACKOFF_S", (600.0,))
    said: list[str] = []
    command = [sys.executable, "-c", "raise SystemExit(7)"]
    fleet = Fleet(command, Autoscaler(Goal(10, 1, 1)), ["default"], said.append)
    fleet.look()
    (process,) = fleet.working
    process.popen.wait(60)
    for _ in range(3):
        fleet.look()
    assert fleet.working == []
    assert said[-1] == f"worker {process.popen.pid} ended with 7; another in 600 s"


def test_look__own_workers_that_still_end__are_not_taken_for_others(empty_valkey: None) -> None:
    said: list[str] = []
    command = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"]
    scaler = _Wanted(3)
    fleet = Fleet(command, scaler, ["default"], said.append)  # type: ignore[arg-type]
    try:
        fleet.look()
        for process in fleet.working:
            made = workers.register(pool="threads", concurrency=1, queues=["default"])
            Worker.objects.filter(id=made.id).update(pid=process.popen.pid)
        scaler.processes = 1
        fleet.look()
        (left,) = fleet.working
        fleet.look()  # two of the three have a lease as long as they end
        assert fleet.working == [left]
        assert scaler.seen[-1] == 1
    finally:
        for process in fleet._processes:
            process.popen.kill()
            process.popen.wait()


def test_look__own_worker_gets_its_row_meanwhile__counts_once(
    empty_valkey: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It once counted as one that starts and as one that is there, and was asked to stop as one too many."""
    scaler = _Wanted(1)
    fleet = Fleet([sys.executable, "-c", "import time; time.sleep(60)"], scaler, ["default"], print)  # type: ignore[arg-type]
    real, looks = workers.living, list[int]()
    try:
        fleet.look()
        (process,) = fleet.working

        def living() -> Any:
            looks.append(1)
            if len(looks) > 1:
                return real()
            made = workers.register(pool="threads", concurrency=1, queues=["default"])
            Worker.objects.filter(id=made.id).update(pid=process.popen.pid)
            return real().none()  # as it was a moment ago

        monkeypatch.setattr(workers, "living", living)
        fleet.look()
        fleet.look()
        assert (fleet.working, scaler.seen) == ([process], [0, 1, 1])
    finally:
        for one in fleet._processes:
            one.popen.kill()
            one.popen.wait()


class _Wanted:
    """A scaler that wants what it is told, and remembers how many it was told to be there."""

    def __init__(self, processes: int) -> None:
        self.processes, self.seen = processes, list[int]()

    def wanted(self, now: Sight) -> int:
        self.seen.append(now.processes)
        return self.processes


def test_sight_of__jobs_that_are_due_later_or_paused__do_not_count(empty_valkey: None, file: Path) -> None:
    enqueue_many(tasks.trace, [{"file": str(file), "number": n} for n in range(3)])
    enqueue_many(tasks.trace, [{"file": str(file), "number": 3}], delay=60)
    sight = sight_of(["traces"])
    assert (sight.backlog, sight.processes, sight.ended) == (3, 0, 0)
    assert sight.oldest_s >= 0
    assert sight_of(["default"]).backlog == 0


def test_sight_of__jobs_that_wait_for_their_turn__count(empty_valkey: None, file: Path) -> None:
    queues.find("traces")
    queues.configure("traces", is_fair=True, actor=None, source="system")
    enqueue_many(tasks.trace, [{"file": str(file), "number": n} for n in range(3)])
    assert sight_of(["traces"]).backlog == 3


@pytest.mark.usefixtures("nothing_published")
def test_sight_of__jobs_that_more_workers_could_not_run__do_not_count(empty_valkey: None, file: Path) -> None:
    """A rate that was used up, or a paused tenant, once had as many workers as may be run, for nothing."""
    workers.register(pool="threads", concurrency=2, queues=["traces"])
    queues.find("traces")
    rate = {"rate_count": 1, "rate_period_s": 3600.0}
    limited = queues.configure("traces", **rate, actor=None, source="system")
    policies.by_name(fresh=True)
    enqueue_many(tasks.trace, [{"file": str(file), "number": n} for n in range(3)], tenant="a")
    assert hand_out(limited, slots=2).granted == 1
    Job.objects.update(created_at=timezone.now() - timedelta(hours=1))
    sight = sight_of(["traces"])
    assert (sight.backlog, sight.oldest_s) == (1, 0.0)  # what has its turn
    none = {"rate_count": None, "rate_period_s": None, "is_fair": True}
    queues.configure("traces", **none, actor=None, source="system")
    assert sight_of(["traces"]).backlog == 3
    tenants.configure("traces", "a", paused=True, actor=None, source="system")
    assert sight_of(["traces"]).backlog == 0
    enqueue_many(tasks.trace, [{"file": str(file), "number": 3}], tenant="b")
    sight = sight_of(["traces"])
    assert (sight.backlog, sight.oldest_s < 60) == (1, True)


def test_sight_of__many_queues__asks_the_broker_by_one_connection(
    empty_valkey: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, made = wakeup.connection, list[Any]()
    monkeypatch.setattr(wakeup, "connection", lambda: made.append(connect()) or made[-1])
    sight_of([f"queue{n}" for n in range(5)])
    assert len(made) == 1


def test_sight_of__workers_of_other_queues__do_not_count_and_quiet_ones_neither(empty_valkey: None) -> None:
    """A fleet of one queue once had no worker, as another queue had one."""
    for consumed in (["default"], [], ["default", "traces"]):
        workers.register(pool="threads", concurrency=1, queues=consumed)
    counted = [sight_of(names).processes for names in (["traces"], ["default"], ["emails"], [])]
    assert counted == [1, 2, 0, 2]


def test_look__workers_of_others__are_counted_in_and_told_of_once(empty_valkey: None) -> None:
    workers.register(pool="threads", concurrency=1, queues=["default"])
    said: list[str] = []
    fleet = Fleet(
        [sys.executable, "-c", "raise SystemExit(7)"], Autoscaler(Goal(10, 1, 1)), ["default"], said.append
    )
    for _ in range(2):
        fleet.look()
    assert fleet.working == []
    assert said == ["workers of others that serve these queues, and count: 1"]
