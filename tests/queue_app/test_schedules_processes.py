"""Schedules in processes of their own: workers and `celery beat` beside each other, one of them killed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from celery.schedules import schedule as every
from django.db import OperationalError

from queue_app import clock, firing, schedules
from queue_app.beat import Scheduler
from queue_app.models import Firing, Job, Schedule
from queue_app.states import State

from .conftest import CELERY, WorkerProcess, environment, until
from .jobs_app import tasks

BEAT = ["-m", "celery", "-A", "brain_project", "beat"]
WHO: dict[str, Any] = {"actor": "somebody", "source": "cli"}


def make(name: str, file: Path, **fields: Any) -> Schedule:
    payload = {"file": str(file), "number": 1}
    return schedules.create(
        name, **{"task": tasks.trace.name, "interval_s": 1, "payload": payload} | fields, **WHO
    )


@pytest.fixture
def start_beat(tmp_path: Path, transactional_db: None) -> Iterator[Callable[[], WorkerProcess]]:
    started: list[WorkerProcess] = []

    def start() -> WorkerProcess:
        number = len(started)
        own = [
            "--schedule",
            str(tmp_path / f"beat-{number}"),
            "--pidfile",
            str(tmp_path / f"beat-{number}.pid"),
        ]
        beat = WorkerProcess([*BEAT, *own], tmp_path / f"beat-{number}.log", environment())
        started.append(beat)
        until(lambda: "beat: Starting" in beat.log or beat.process.poll() is not None, "beat has started")
        assert beat.process.poll() is None, beat.log
        return beat

    yield start
    for beat in started:
        beat.kill()


@pytest.mark.drilled("schedules-missed")
@pytest.mark.slow
def test_worker_and_two_beats__one_killed__each_moment_runs_once(
    start_worker, start_beat, short_leases, file
):
    worker = start_worker("-P", "threads", "-c", "2")
    beats = [start_beat() for _ in range(2)]
    make("ticking", file, missed="all")
    until(lambda: Firing.objects.count() >= 3, "it ticks")
    beats[0].signal(signal.SIGKILL)
    count = Firing.objects.count()
    until(lambda: Firing.objects.count() >= count + 3, "it ticks on")
    worker.kill()
    count = Firing.objects.count()
    until(lambda: Firing.objects.count() >= count + 3, "it ticks on without a worker")
    start_worker("-P", "threads", "-c", "2", command=CELERY)
    schedules.pause(Schedule.objects.get(), **WHO)
    until(lambda: set(Job.objects.values_list("state", flat=True)) == {State.COMPLETED}, "all have run")
    moments = [*Firing.objects.order_by("due_at").values_list("due_at", flat=True)]
    assert moments == [moments[0] + n * timedelta(seconds=1) for n in range(len(moments))]
    assert {*Firing.objects.values_list("outcome", flat=True)} == {"fired"}
    assert Job.objects.count() == len(moments)


@pytest.mark.slow
def test_worker__alone__fires_and_runs(start_worker, file):
    make("ticking", file)
    worker = start_worker("-P", "threads", "-c", "2")
    until(lambda: len(file.read_text().split()) >= 2, "two have run")
    assert worker.terminate() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overlap", "takes_s", "ends_as"), [("wait", 2.5, "COMPLETED"), ("replace", 60, "CANCELLED")]
)
def test_worker__jobs_longer_than_the_interval__never_two_at_once(
    start_worker, file, overlap, takes_s, ends_as
):
    payload = {"file": str(file), "takes_s": takes_s, "checks": True}
    made = make("long", file, task=tasks.linger.name, payload=payload, overlap=overlap)
    start_worker("-P", "threads", "-c", "4")
    ended = Job.objects.filter(state=ends_as)
    until(lambda: ended.count() >= 2, "two have ended")
    schedules.pause(made, **WHO)
    jobs = [*Job.objects.filter(started_at__isnull=False).order_by("started_at")]
    assert {job.state for job in jobs[:2]} == {ends_as}
    assert all(job.finished_at <= after.started_at for job, after in zip(jobs, jobs[1:], strict=False))


# --- beat in this process ----------------------------------------------------------------------------------------------------
@pytest.fixture
def beat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scheduler]:
    """With one entry of Celery's own that is due; `sent` holds what it sends."""
    entry = {"task": "some.celery.task", "schedule": every(timedelta(seconds=0))}
    current_app.conf.beat_schedule = {"own": entry}
    scheduler = Scheduler(current_app._get_current_object(), schedule_filename=str(tmp_path / "beat"))
    scheduler.sent = sent = []
    monkeypatch.setattr(scheduler, "apply_async", lambda entry, **_: sent.append(entry.name))
    yield scheduler
    scheduler.close()
    current_app.conf.beat_schedule = {}


@pytest.mark.django_db
def test_beat__entries_of_both_kinds__celerys_are_sent_and_rows_fire(beat, file):
    hourly = make("hourly", file, interval_s=3600)  # of a shorter one two moments may have come
    Schedule.objects.filter(pk=hourly.pk).update(next_at=clock.now())
    assert 0 <= beat.tick() <= 1
    assert beat.sent == ["own"]
    assert [*Firing.objects.values_list("outcome", flat=True)] == ["fired"]


def test_beat__database_is_away__celerys_entries_are_sent_all_the_same(beat, monkeypatch):
    def away() -> float:
        raise OperationalError("gone")

    monkeypatch.setattr(firing, "look", away)
    beat.tick()
    assert beat.sent == ["own"]
