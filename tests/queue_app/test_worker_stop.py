"""How workers end: SIGTERM under load, past the grace, twice; SIGQUIT; an engine that has died."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import signals
from celery.apps import worker as apps
from celery.concurrency import thread as threads
from celery.exceptions import WorkerShutdown
from celery.worker import state
from django.db import OperationalError

from brain_project.celery import app
from queue_app import enqueue, enqueue_many
from queue_app.models import Job, Worker
from queue_app.worker.duties import Membership
from queue_app.worker.stopping import Ending

from .conftest import POOLS, TIMEOUT_S, WorkerProcess, until
from .jobs_app import tasks

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

Start = Callable[..., WorkerProcess]
EVER_S = 600  # longer than any test waits


def linger(file: Path, **payload: object) -> Job:
    return enqueue(tasks.linger, {"file": str(file), "takes_s": EVER_S, **payload})


def counts() -> dict[str, int]:
    return Counter(Job.objects.filter(delivery="ledger").values_list("state", flat=True))


def test_sigterm__under_load__what_ran_is_recorded_and_the_rest_waits_uncharged(
    start_worker: Start, file: Path, pool: tuple[str, ...]
) -> None:
    worker = start_worker(*pool)
    for number in range(150):
        tasks.stock_trace.delay(os.devnull, number)
    enqueue_many(
        tasks.trace, [{"file": str(file), "number": number, "takes_s": 0.1} for number in range(150)]
    )
    until(lambda: len(file.read_text().split()) >= 10, "some jobs have run")
    assert worker.terminate() == 0
    ran = file.read_text().split()
    assert len(ran) == len(set(ran))
    assert counts() == {"COMPLETED": len(ran), "PENDING": 150 - len(ran)}
    assert not Job.objects.exclude(crash_count=0, suspect=False).exists()
    assert Worker.objects.get().stopped_at is not None
    assert "children_killed_late" not in worker.events()


def test_sigterm_twice__a_run_outlasts_the_grace__is_given_back_and_another_ends(
    start_worker: Start, file: Path, pool: tuple[str, ...]
) -> None:
    worker = start_worker(*pool)
    outlasts, ends = linger(file, blocks=True), linger(file, takes_s=2.0)
    until(lambda: file.read_text().count("start") == 2, "both run")
    worker.process.terminate()
    until(lambda: "Warm shutdown" in worker.log, "it has heard")
    assert worker.terminate() == 0
    for job in (outlasts, ends):
        job.refresh_from_db()
    assert (ends.state, ends.crash_count) == ("COMPLETED", 0)
    assert (outlasts.state, outlasts.attempt, outlasts.crash_count) == ("PENDING", 0, 0)
    assert not outlasts.suspect
    assert outlasts.events.latest("id").detail == {"reason": "worker stopped"}


def test_sigquit__runs_and_waiting_jobs__go_back_at_once_uncharged(
    start_worker: Start, file: Path, pool: tuple[str, ...]
) -> None:
    worker = start_worker(*pool)
    jobs = [linger(file, blocks=True) for _ in range(5)]
    until(lambda: file.read_text().count("start") == 2, "two run")
    worker.process.send_signal(signal.SIGQUIT)
    worker.process.wait(TIMEOUT_S)
    assert counts() == {"PENDING": len(jobs)}
    assert not Job.objects.exclude(crash_count=0, suspect=False).exists()
    assert Worker.objects.get().stopped_at is not None


def test_sighup__a_run_outlasts_the_grace__is_given_back_and_the_worker_starts_anew(
    start_worker: Start, file: Path, pool: tuple[str, ...]
) -> None:
    worker = start_worker(*pool)
    before, outlasts = Worker.objects.get(), linger(file, blocks=True)
    until(lambda: "start" in file.read_text(), "it runs")
    worker.process.send_signal(signal.SIGHUP)
    until(lambda: Worker.objects.filter(stopped_at=None).exclude(id=before.id).exists(), "a new worker")
    assert Worker.objects.get(stopped_at=None).pid == before.pid == worker.process.pid
    assert not outlasts.events.exclude(detail={}).exclude(detail={"reason": "worker stopped"}).exists()
    outlasts.refresh_from_db()
    assert (outlasts.attempt, outlasts.crash_count, outlasts.suspect) == (0, 0, False)
    worker.process.send_signal(signal.SIGHUP)
    worker.process.send_signal(signal.SIGTERM)  # somebody wants it to end after all
    worker.process.wait(TIMEOUT_S)


def test_engine__its_thread_dies__worker_does_not_look_alive(start_worker: Start, file: Path) -> None:
    worker = start_worker(*POOLS["threads"])
    enqueue(tasks.break_engine, {})
    assert worker.process.wait(TIMEOUT_S) == os.EX_SOFTWARE
    assert "worker_stalled" in worker.events()
    assert Worker.objects.get().stopped_at is not None


def test_membership__a_signal_before_its_row_is_there__can_be_taken_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Celery's own handler for SIGHUP started a worker again that a SIGTERM right behind it had ended."""
    found: list[bool] = []

    def enter(self: Membership, worker: object, ending: Ending) -> None:
        signal.raise_signal(signal.SIGHUP)
        found.append(ending.is_anew)
        signals.worker_shutting_down.send(sender="it")  # as on SIGTERM
        found.append(ending.is_anew)
        ending.forget()
        raise OperationalError("no row")

    monkeypatch.setattr(Membership, "_enter", enter)
    monkeypatch.setattr(state, "should_stop", None)
    worker = apps.Worker.__new__(apps.Worker)
    worker._isatty, worker.app, worker.pool_cls = False, app, threads.TaskPool
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGQUIT)}
    try:
        with pytest.raises(WorkerShutdown):
            Membership.__new__(Membership).start(worker)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert found == [True, False]
