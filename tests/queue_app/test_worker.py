"""What a real worker does with the ledger: threads and prefork, kill -9, SIGSTOP, SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from queue_app import enqueue, queues
from queue_app.models import Job, Worker

from .conftest import ROOT, WorkerProcess, environment, until
from .jobs_app import tasks

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

Start = Callable[..., WorkerProcess]
THREADS = ("-P", "threads", "-c", "2")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "traces"
    path.touch()
    return path


def trace(file: Path, number: int = 1, *, queue: str | None = None, **payload: Any) -> Job:
    return enqueue(tasks.trace, {"file": str(file), "number": number, **payload}, queue=queue)


def state(job: Job) -> str:
    return Job.objects.values_list("state", flat=True).get(id=job.id)


def open_jobs() -> bool:
    return Job.objects.filter(state__in=["PENDING", "PROCESSING", "FAILED"]).exists()


def test_threads__good_async_and_failing_job__reach_their_ends(start_worker: Start, file: Path) -> None:
    worker = start_worker(*THREADS)
    good = enqueue(tasks.trace, {"file": str(file), "number": 7}, request_id="r-7")
    answered = enqueue("async_traces", {"number": 8})
    bad = trace(file, 9, fails=True)
    until(lambda: not open_jobs(), "every job ends")
    for job in (good, answered, bad):
        job.refresh_from_db()
    assert (good.state, good.result, good.attempt) == ("COMPLETED", {"number": 7}, 1)
    assert (answered.state, answered.result) == ("COMPLETED", "jobs.async_trace 8")
    assert (bad.state, bad.attempt, bad.last_error["type"]) == ("DEAD_LETTER", 3, "ConnectionError")
    assert file.read_text().split() == ["7", "9", "9", "9"]
    lines = [json.loads(line) for line in worker.log.splitlines() if line.startswith("{")]
    said = {line["event"]: line for line in lines if line.get("job_id") == str(good.id)}
    assert said["job_started"]["request_id"] == said["job_completed"]["request_id"] == "r-7"


def test_queue_command__queue_made_later__is_consumed_within_5_s(start_worker: Start, file: Path) -> None:
    start_worker("-c", "2", command=["manage.py", "queue"])
    queues.create_queue("made_later")
    job = trace(file, queue="made_later")
    until(lambda: state(job) == "COMPLETED", "the new queue is consumed", timeout_s=5)


def test_given_queues__jobs_elsewhere__are_left_alone(start_worker: Start, file: Path) -> None:
    start_worker(*THREADS, "-Q", "traces")
    elsewhere, here = enqueue("async_traces", {"number": 1}), trace(file)
    until(lambda: state(here) == "COMPLETED", "its own queue is consumed")
    assert Worker.objects.get().queues == ["traces"]
    assert state(elsewhere) == "PENDING"


def test_paused_queue__jobs_wait__until_it_is_resumed(start_worker: Start, file: Path) -> None:
    start_worker(*THREADS)
    queues.configure("traces", paused=True, actor="ada", source="cli")
    until(lambda: "traces" not in Worker.objects.get().queues, "the queue is put down")
    job = trace(file)
    time.sleep(1)
    assert state(job) == "PENDING"
    queues.configure("traces", paused=False, actor="ada", source="cli")
    until(lambda: state(job) == "COMPLETED", "the queue is taken up", timeout_s=5)


def test_kill_9__jobs_run_and_wait__another_worker_finishes_all(start_worker: Start, file: Path) -> None:
    first = start_worker(*THREADS)
    jobs = [trace(file, number, takes_s=0.1) for number in range(40)]
    until(lambda: len(file.read_text().split()) >= 8, "some jobs have run")
    first.signal(signal.SIGKILL)
    assert Job.objects.filter(state="PROCESSING").exists()
    start_worker(*THREADS)
    until(lambda: not open_jobs(), "every job ends")
    assert Job.objects.filter(state="COMPLETED").count() == len(jobs)
    assert set(map(int, file.read_text().split())) == set(range(40))


def test_sigstop__worker_wakes_after_its_lease__late_result_is_refused(
    start_worker: Start, file: Path
) -> None:
    frozen = start_worker(*THREADS)
    job = trace(file, takes_s=3)
    until(lambda: Worker.objects.filter(running=[str(job.id)]).exists(), "the heartbeat names the job")
    frozen.signal(signal.SIGSTOP)
    start_worker(*THREADS)
    until(lambda: state(job) == "COMPLETED", "the other worker runs it")
    frozen.signal(signal.SIGCONT)
    until(lambda: "job_result_refused" in frozen.log, "the late result is refused")
    job.refresh_from_db()
    assert (job.fence, job.crash_count, job.attempt) == (2, 1, 1)


def test_sigterm__job_runs__ends_it_and_leaves(start_worker: Start, file: Path) -> None:
    worker = start_worker(*THREADS)
    job = trace(file, takes_s=2.5)  # longer than the lease: heartbeats go on while the pool drains
    until(lambda: state(job) == "PROCESSING", "the job runs")
    assert worker.terminate() == 0
    job.refresh_from_db()
    assert (job.state, job.crash_count) == ("COMPLETED", 0)
    assert Worker.objects.get().stopped_at is not None


def test_prefork__job_kills_its_process__is_dead_after_three_and_others_complete(
    start_worker: Start, file: Path
) -> None:
    start_worker("-c", "2")
    poison = enqueue(tasks.kill_own_process, {})
    innocent = [trace(file, number) for number in range(5)]
    until(lambda: state(poison) == "DEAD_LETTER", "the poison is stopped")
    until(lambda: not open_jobs(), "the others end")
    assert [state(job) for job in innocent] == ["COMPLETED"] * 5
    poison.refresh_from_db()
    assert (poison.crash_count, poison.last_error["type"]) == (3, "WorkerLost")


def test_worker__database_is_not_migrated__says_so_and_exits_1(tmp_path: Path, valkey: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "brain_project", "worker", "-P", "solo"],
        cwd=ROOT,
        env=os.environ | environment() | {"DATABASE_URL": f"sqlite:///{tmp_path}/empty.sqlite3"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert "run `manage.py migrate`" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
