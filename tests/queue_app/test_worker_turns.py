"""Queues with limits on real workers in processes of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.db.models import Max, Min

from queue_app import enqueue, enqueue_many, policies, queues
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
    policies.by_name(fresh=True)


def linger(file: Path, count: int, takes_s: float, tenant: str = "") -> None:
    enqueue_many(tasks.linger, [{"file": str(file), "takes_s": takes_s} for _ in range(count)], tenant=tenant)


def at_once(file: Path) -> list[int]:
    """At each start, how many ran then."""
    now, found = 0, []
    for line in file.read_text().splitlines():
        now += 1 if line.startswith("start") else -1
        if line.startswith("start"):
            found.append(now)
    return found


def test_concurrency__two_workers_of_each_kind__is_kept_and_used(
    start_worker: Start, file: Path, pool: tuple[str, ...]
) -> None:
    limit(max_concurrency=3)
    for _ in range(2):
        start_worker(*pool, "-Q", NAME)
    linger(file, 12, takes_s=0.3)
    until(lambda: not open_jobs(), "all have run")
    found = at_once(file)
    assert max(found) == 3
    assert found.count(1) <= 6  # one after the other it would be all twelve


def test_turns__a_job_comes_to_idle_workers__starts_at_once(
    start_worker: Start, worker_conf: Callable[..., None], file: Path
) -> None:
    limit(is_fair=True)
    worker_conf(
        RECONCILE_S=60.0
    )  # nobody looks of himself: what starts sooner does because somebody was told
    start_worker(*POOLS["threads"], "-Q", NAME)
    for _ in range(10):
        job = enqueue(tasks.linger, {"file": str(file), "takes_s": 0.0})
        until(lambda job=job: state(job) == "COMPLETED", "it has run", timeout_s=30)


def test_fairness__ten_jobs_behind_a_long_backlog__do_not_wait_for_it(
    start_worker: Start, file: Path
) -> None:
    limit(is_fair=True)
    start_worker(*POOLS["threads"], "-Q", NAME)
    linger(file, 2000, takes_s=0.02, tenant="large")
    until(lambda: Job.objects.filter(state="COMPLETED").count() > 20, "it is at it")
    linger(file, 10, takes_s=0.02, tenant="small")
    small = Job.objects.filter(tenant="small")
    until(lambda: small.filter(state="COMPLETED").count() == 10, "the small tenant is served")
    came, last = small.aggregate(Min("created_at"), Max("started_at")).values()
    meanwhile = Job.objects.filter(tenant="large", started_at__range=(came, last)).count()
    assert meanwhile < 200  # of 2,000 that were there before


def test_concurrency__a_worker_is_killed__its_turns_come_back(
    start_worker: Start, short_leases: None, file: Path
) -> None:
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
    linger(file, 500, takes_s=0.05)
    until(lambda: "end" in file.read_text(), "it runs")
    limit(max_concurrency=1)
    until(lambda: Job.objects.filter(turn=2).exists(), "they wait for their turns")
    until(lambda: at_once(file)[-10:] == [1] * 10, "one runs at a time")
    ran = len(at_once(file))
    until(lambda: len(at_once(file)) >= ran + 10, "it goes on")
    assert set(at_once(file)[ran:]) == {1}
    assert open_jobs()
    limit(max_concurrency=None)
    until(lambda: at_once(file)[-1] == 2, "two run at once again")
