"""Pools: prefork's children come and go, solo has a thread of its own, greenlets are refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from django.conf import settings

from brain_project.celery import app
from queue_app import enqueue
from queue_app.models import Job, Worker

from .conftest import POOLS, ROOT, WorkerProcess, environment, until
from .jobs_app import tasks

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

Start = Callable[..., WorkerProcess]


def linger(file: Path, **payload: object) -> Job:
    return enqueue(tasks.linger, {"file": str(file), **payload})


def all_over() -> bool:
    return not Job.objects.filter(state__in=["PENDING", "PROCESSING", "FAILED"]).exists()


def test_prefork__a_child_is_killed__its_job_is_charged_once_and_no_other(
    start_worker: Start, file: Path
) -> None:
    worker, gate = start_worker(*POOLS["prefork"]), file.with_name("gate")
    first = linger(file, gate=str(gate))
    until(lambda: "start" in file.read_text(), "it runs")
    child = int(file.read_text().split()[1])
    others = [linger(file, gate=str(gate)) for _ in range(3)]
    until(lambda: file.read_text().count("start") == 2, "another runs")
    for _ in range(2):  # heartbeats go on while every child is busy
        seen = Worker.objects.get().last_seen_at
        until(lambda seen=seen: Worker.objects.get().last_seen_at > seen, "it beats")
    os.kill(child, signal.SIGKILL)
    gate.touch()
    until(all_over, "all end")
    first.refresh_from_db()
    assert (first.state, first.attempt, first.crash_count) == ("COMPLETED", 1, 1)
    for job in others:
        job.refresh_from_db()
        assert (job.state, job.attempt, job.crash_count, job.fence) == ("COMPLETED", 1, 0, 1)
    assert worker.process.poll() is None


def test_prefork__broker_connection_is_lost__no_run_is_lost_or_doubled(
    start_worker: Start, file: Path
) -> None:
    start_worker(*POOLS["prefork"], "--max-tasks-per-child", "3")
    jobs = [linger(file, takes_s=0.15) for _ in range(16)]
    for runs in (3, 7):
        until(lambda runs=runs: file.read_text().count("end") >= runs, "some have run")
        redis.Redis.from_url(settings.REDIS_URL).client_kill_filter(_type="normal", skipme=True)
    until(all_over, "all end")
    words = file.read_text().split()
    # Not the fence: what no child had read yet when the connection broke is given back, and claimed once more.
    ended = list(Job.objects.values_list("state", "attempt", "crash_count"))
    assert ended == [("COMPLETED", 1, 0)] * len(jobs), file.read_text()
    assert words.count("start") == words.count("end") == len(jobs)
    children = [word for word in words if word.isdigit()]
    assert max(children.count(child) for child in children) <= 3  # they are recycled by the ledger's jobs too


def test_autoscale__more_jobs_than_children__grows_and_inspect_names_them(
    start_worker: Start, file: Path
) -> None:
    start_worker("--autoscale=3,1")
    jobs = [linger(file, takes_s=600, checks=True) for _ in range(3)]
    until(lambda: len(Worker.objects.get().running) == 3, "three run at once")
    seen = app.control.inspect(timeout=30, limit=1).active()
    assert {entry["id"] for entry in next(iter(seen.values()))} == {str(job.id) for job in jobs}


def test_solo__jobs__run_on_a_thread_of_their_own(start_worker: Start, file: Path) -> None:
    worker = start_worker("-P", "solo")
    jobs = [linger(file, takes_s=0.01) for _ in range(3)]
    until(all_over, "all end")
    assert Job.objects.filter(state="COMPLETED").count() == len(jobs)
    assert Worker.objects.get().pool == "solo"
    assert worker.terminate() == 0


def test_greenlets__are_refused__with_a_reason_and_exit_code_64(
    tmp_path: Path, valkey: str, transactional_db: None
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "brain_project", "worker", "-P", "custom"],
        cwd=ROOT,
        env=os.environ
        | environment()
        | {"CELERY_CUSTOM_WORKER_POOL": "tests.queue_app.jobs_app.greenlets:TaskPool"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == os.EX_USAGE, done.stdout + done.stderr
    assert "gevent" in done.stdout + done.stderr
