"""The engine's database thread on real databases, with a runner that answers at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError

from queue_app import enqueue_many, ledger, wakeup, workers
from queue_app.models import Job, JobEvent
from queue_app.runs import Run
from queue_app.statements import End
from queue_app.states import State
from queue_app.worker import engine as engine_module
from queue_app.worker.engine import Engine, Message
from queue_app.worker.runner import ThreadRunner
from queue_app.worker.slots import Slots

from .conftest import until

pytestmark = pytest.mark.usefixtures("every_database")
LEASE_S = 60.0


class AtOnce:
    """Ends every run as it is told to, on the database thread itself."""

    def __init__(self, engine: Engine, end: Callable[[Run], End]) -> None:
        self.engine, self.end = engine, end
        self.started: list[UUID] = []

    @property
    def moved_at(self) -> float:
        return time.monotonic()  # nothing waits

    def submit(self, run: Run) -> None:
        self.started.append(run.id)
        self.engine.finished(run, self.end(run), 0.001)

    def running(self) -> list[UUID]:
        return []


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeup, "publish", lambda wakeups: True)


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[Engine, AtOnce]]]:
    started: list[Engine] = []

    def begin(end: Callable[[Run], End]) -> tuple[Engine, AtOnce]:
        worker = workers.register(pool="threads", concurrency=4, queues=[])
        engine = Engine(
            worker.id, slots=4, lease_s=LEASE_S, call_soon=lambda act, *arguments: act(*arguments)
        )
        engine.runner = runner = AtOnce(engine, end)
        engine.start()
        started.append(engine)
        return engine, runner

    yield begin
    for engine in started:
        assert engine.stop(timeout_s=60)


def completed(run: Run) -> End:
    return End(run.id, run.fence, State.COMPLETED, 1)


def send(engine: Engine, jobs: list[Job]) -> list[UUID]:
    """The ids whose messages are acknowledged, in time."""
    acknowledged: list[UUID] = []
    engine.receive([Message(job.id, lambda id=job.id: acknowledged.append(id)) for job in jobs])
    return acknowledged


def test_engine__more_messages_than_its_window__all_are_run_and_acknowledged(start: Any) -> None:
    jobs = enqueue_many("email_queue", [{"n": n} for n in range(50)])
    engine, runner = start(completed)
    acknowledged = send(engine, jobs)
    until(lambda: len(acknowledged) == 50, "every message is acknowledged")
    assert sorted(runner.started) == sorted(job.id for job in jobs)
    assert set(Job.objects.values_list("state", "attempt")) == {("COMPLETED", 1)}


def test_engine__message_comes_twice__the_job_runs_once(start: Any) -> None:
    jobs = enqueue_many("email_queue", [{"n": 1}])
    engine, runner = start(completed)
    acknowledged = send(engine, jobs * 3)
    until(lambda: len(acknowledged) == 3, "every message is acknowledged")
    assert runner.started == [jobs[0].id]


def test_engine__a_result_that_does_not_fit__costs_only_itself(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = enqueue_many("email_queue", [{"n": n} for n in range(5)])
    bad = jobs[2].id
    engine, _ = start(
        lambda run: completed(run)._replace(result="no json" if run.id == bad else '{"fine": 1}')
    )
    acknowledged = send(engine, jobs)
    until(lambda: len(acknowledged) == 5, "every message is acknowledged")
    assert set(Job.objects.values_list("state", flat=True)) == {"COMPLETED"}
    assert Job.objects.get(id=bad).result is None
    assert Job.objects.get(id=jobs[3].id).result == {"fine": 1}


def test_engine__database_is_away_for_a_while__nothing_is_lost(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = enqueue_many("email_queue", [{"n": n} for n in range(5)])
    real, failures = ledger.exchange, iter(range(4))

    def exchange(*arguments: Any, **more: Any) -> Any:
        if next(failures, None) is not None:
            raise OperationalError("server closed the connection unexpectedly")
        return real(*arguments, **more)

    monkeypatch.setattr(ledger, "exchange", exchange)
    engine, _ = start(completed)
    began = time.monotonic()
    acknowledged = send(engine, jobs)
    until(lambda: len(acknowledged) == 5, "every message is acknowledged")
    assert time.monotonic() - began > 0.5
    assert set(Job.objects.values_list("state", flat=True)) == {"COMPLETED"}


def test_engine__suspects__run_one_at_a_time_and_on_record(start: Any) -> None:
    jobs = enqueue_many("email_queue", [{"n": n} for n in range(3)])
    Job.objects.update(suspect=True)
    marked: list[bool] = []

    def end(run: Run) -> End:
        row = Job.objects.get(id=run.id)
        marked.append(row.is_marked and Job.objects.filter(is_marked=True).count() == 1)
        return completed(run)

    engine, _ = start(end)
    acknowledged = send(engine, jobs)
    until(lambda: len(acknowledged) == 3, "every message is acknowledged")
    assert marked == [True, True, True]


def test_engine__a_long_run_takes_the_slot__what_waits_behind_it_goes_back(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While jobs are short, hundreds are claimed ahead; another worker may have slots that are free."""
    monkeypatch.setattr(engine_module, "LONG_S", 0.2)
    jobs = enqueue_many("email_queue", [{"n": n} for n in range(12)])
    engine, _ = start(completed)
    slots, gate = Slots(1), threading.Event()
    engine.runner = runner = ThreadRunner(engine, slots)

    def held(run: Run) -> End:
        gate.wait(60)
        return completed(run)

    monkeypatch.setattr(runner, "_performed", held)
    try:
        acknowledged = send(engine, jobs)  # eight are claimed, four are messages that wait for room
        until(lambda: len(acknowledged) == 11, "all but the one that runs go back")
        (runs,) = engine.running()
        assert runs == engine.held.pop()
        back = Job.objects.exclude(id=runs)
        assert set(back.values_list("state", "published_at", "attempt", "crash_count")) == {
            ("PENDING", None, 0, 0)
        }
        assert set(JobEvent.objects.filter(job__in=back, state="PROCESSING").values_list("job")) < set(
            back.values_list("id")
        )
        gate.set()
        until(lambda: len(acknowledged) == 12, "the long one ends")
    finally:
        gate.set()
        slots.close()
    assert Job.objects.get(id=runs).state == "COMPLETED"


def test_close__runs_are_claimed__what_has_not_started_goes_back_uncharged(start: Any) -> None:
    jobs = enqueue_many("email_queue", [{"n": n} for n in range(3)])
    engine, _ = start(lambda run: End(run.id, run.fence, State.PENDING, 0, detail='{"reason": "given back"}'))
    acknowledged = send(engine, jobs)
    until(lambda: len(acknowledged) == 3, "every message is acknowledged")
    rows = set(Job.objects.values_list("state", "attempt", "crash_count", "published_at"))
    assert rows == {("PENDING", 0, 0, None)}
