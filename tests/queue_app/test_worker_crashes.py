"""Workers that die or freeze, and a job that kills its own process."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from queue_app import enqueue, reconciler, rollup_rows, rollups
from queue_app.histograms import Tally, total
from queue_app.models import Job, JobEvent, Lease, Rollup, Worker

from .conftest import POOLS, WorkerProcess, until
from .jobs_app import tasks
from .traces import open_jobs, state, trace

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

Start = Callable[..., WorkerProcess]
THREADS = POOLS["threads"]


def test_kill_9__jobs_run_and_wait__another_worker_finishes_all(
    start_worker: Start, short_leases: None, file: Path
) -> None:
    first = start_worker(*THREADS)
    jobs = [trace(file, number, takes_s=0.3) for number in range(40)]
    until(lambda: len(file.read_text().split()) >= 8, "some jobs have run")
    first.signal(signal.SIGKILL)
    assert Job.objects.filter(state="PROCESSING").exists()
    start_worker(*THREADS)
    until(lambda: not open_jobs(), "every job ends")
    assert Job.objects.filter(state="COMPLETED").count() == len(jobs)
    assert set(map(int, file.read_text().split())) == set(range(40))


def test_kill_9__leading_reconciler__the_other_worker_finds_due_jobs_within_the_leases_time(
    start_worker: Start, worker_conf: Callable[..., None], file: Path
) -> None:
    lease_s, due_s, margin_s = 3.0, 1.0, 20.0  # the last for a machine that stands still
    worker_conf(LEASE_S=lease_s)
    fleet = {worker.process.pid: worker for worker in (start_worker(*THREADS), start_worker(*THREADS))}
    leader = frozen_leader(fleet)
    fleet[leader.pid].signal(signal.SIGKILL)
    for number in range(10):
        enqueue(tasks.trace, {"file": str(file), "number": number}, delay=due_s)
    until(lambda: not open_jobs(), "the due jobs are run", due_s + lease_s * 4 / 3 + margin_s)
    assert sorted(map(int, file.read_text().split())) == list(range(10))
    assert lead() not in (None, leader.id)


def frozen_leader(fleet: dict[int, WorkerProcess]) -> Worker:
    """The worker that reconciles, stopped while it does: the lease may have changed hands in between."""
    while True:
        leader = Worker.objects.get(id=until(lead, "one of them leads"))
        fleet[leader.pid].signal(signal.SIGSTOP)
        if lead() == leader.id:
            return leader
        fleet[leader.pid].signal(signal.SIGCONT)


@pytest.mark.drilled("kill9-threads-ledger")
def test_kill_9__worker_that_counts__every_step_is_counted_once(
    start_worker: Start, short_leases: None, file: Path
) -> None:
    fleet = {worker.process.pid: worker for worker in (start_worker(*THREADS), start_worker(*THREADS))}
    for number in range(30):
        trace(file, number, takes_s=0.05)
    until(lambda: counted().completed, "some are counted")
    for number in range(30, 60):
        trace(file, number, takes_s=0.05)
    until(lambda: len(set(file.read_text().split())) >= 40, "some more have run")
    fleet[Worker.objects.get(id=lead()).pid].signal(signal.SIGKILL)
    until(lambda: counted().completed == 60, "the other worker counts the rest")
    assert counted().started == JobEvent.objects.filter(state="PROCESSING", detail={}).count()
    assert JobEvent.objects.filter(state="COMPLETED").count() == 60


def counted() -> Tally:
    minutes = Rollup.objects.filter(step_s=rollups.MINUTE_S, tenant="")
    return total(tally for _, tally in rollup_rows.tallied(minutes))


def lead() -> UUID | None:
    """The worker that reconciles."""
    return Lease.objects.filter(name=reconciler.NAME).values_list("holder", flat=True).first()


def test_sigstop__worker_wakes_after_its_lease__late_result_is_refused(
    start_worker: Start, worker_conf: Callable[..., None], file: Path
) -> None:
    worker_conf(LEASE_S=2.5)
    frozen, gate = start_worker(*THREADS), file.with_name("gate")
    job = trace(file, gate=str(gate))
    until(lambda: Worker.objects.filter(running=[str(job.id)]).exists(), "the heartbeat names the job")
    frozen.signal(signal.SIGSTOP)
    start_worker(*THREADS)
    gate.touch()  # not before: a thread may go on for a moment after the signal
    until(lambda: state(job) == "COMPLETED", "the other worker runs it")
    frozen.signal(signal.SIGCONT)
    until(lambda: "job_result_refused" in frozen.log, "the late result is refused")
    job.refresh_from_db()
    assert (job.fence, job.crash_count, job.attempt) == (2, 1, 1)


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
