"""Queues with limits on real workers in processes of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from queue_app import enqueue, enqueue_many, queues
from queue_app.models import Job

from .conftest import POOLS, WorkerProcess, until
from .jobs_app import tasks
from .traces import open_jobs, state

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

Start = Callable[..., WorkerProcess]
NAME = "lingering"


def limit(**limits: object) -> None:
    queues.find(NAME)
    queues.configure(NAME, actor="ada", source="cli", **limits)
    queues.policies(fresh=True)


def linger(file: Path, count: int, takes_s: float, tenant: str = "") -> None:
    enqueue_many(tasks.linger, [{"file": str(file), "takes_s": takes_s} for _ in range(count)], tenant=tenant)


def most_at_once(file: Path) -> int:
    now = most = 0
    for line in file.read_text().splitlines():
        now += 1 if line.startswith("start") else -1
        most = max(most, now)
    return most


def test_concurrency__two_workers_of_each_kind__is_kept_and_used(
    start_worker: Start, file: Path, pool: tuple[str, ...]
) -> None:
    limit(max_concurrency=3)
    for _ in range(2):
        start_worker(*pool, "-Q", NAME)
    began = time.monotonic()
    linger(file, 12, takes_s=0.3)
    until(lambda: not open_jobs(), "all have run")
    assert most_at_once(file) == 3
    assert time.monotonic() - began < 3.6  # what they take one after the other


def test_turns__a_job_comes_to_idle_workers__starts_at_once(start_worker: Start, file: Path) -> None:
    limit(is_fair=True)
    start_worker(*POOLS["threads"], "-Q", NAME)
    waits = []
    for _ in range(10):
        time.sleep(0.1)
        job = enqueue(tasks.linger, {"file": str(file), "takes_s": 0.0})
        until(lambda job=job: state(job) == "COMPLETED", "it has run")
        job.refresh_from_db()
        assert job.started_at is not None
        waits.append((job.started_at - job.created_at).total_seconds())
    assert sorted(waits)[5] < 0.1, waits


def test_fairness__ten_jobs_behind_a_long_backlog__do_not_wait_for_it(
    start_worker: Start, file: Path
) -> None:
    limit(is_fair=True)
    start_worker(*POOLS["threads"], "-Q", NAME)
    linger(file, 2000, takes_s=0.02, tenant="large")
    until(lambda: Job.objects.filter(state="COMPLETED").count() > 20, "it is at it")
    linger(file, 10, takes_s=0.02, tenant="small")
    small = Job.objects.filter(tenant="small")
    until(lambda: small.filter(state="COMPLETED").count() == 10, "the small tenant is served", timeout_s=5)
    assert Job.objects.filter(tenant="large", state="PENDING").count() > 1000
    waits = [(job.started_at - job.created_at).total_seconds() for job in small if job.started_at]
    assert max(waits) < 1.0


def test_concurrency__a_worker_is_killed__its_turns_come_back(start_worker: Start, file: Path) -> None:
    limit(max_concurrency=2)
    first = start_worker(*POOLS["threads"], "-Q", NAME)
    linger(file, 8, takes_s=0.5)
    until(lambda: "start" in file.read_text(), "it runs")
    first.kill()
    start_worker(*POOLS["threads"], "-Q", NAME)
    until(lambda: not open_jobs(), "all have run")
    assert Job.objects.filter(state="COMPLETED").count() == 8


def test_limit__set_on_a_backlog_of_running_workers__holds_soon_and_is_lifted_again(
    start_worker: Start, file: Path
) -> None:
    start_worker(*POOLS["threads"], "-Q", NAME)
    linger(file, 150, takes_s=0.05)
    until(lambda: "end" in file.read_text(), "it runs")
    limit(max_concurrency=1)
    until(lambda: Job.objects.filter(turn=2).exists(), "they wait for their turns", timeout_s=6)
    time.sleep(1)
    file.write_text("")
    time.sleep(1)
    assert most_at_once(file) <= 1
    limit(max_concurrency=None)
    until(lambda: not open_jobs(), "all have run")
