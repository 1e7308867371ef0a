"""Time limits and cancel, on threads and in the children of a prefork pool."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from queue_app import cancelling, enqueue, queues
from queue_app.models import Job, Worker

from .conftest import POOLS, WorkerProcess, until
from .jobs_app import tasks

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

Start = Callable[..., WorkerProcess]
EVER_S = 600  # longer than any test waits


def linger(file: Path, *, queue: str = "lingering", **payload: Any) -> Job:
    return enqueue(tasks.linger, {"file": str(file), "takes_s": EVER_S, **payload}, queue=queue)


def ended(job: Job) -> Job:
    def over() -> bool:
        job.refresh_from_db()
        return job.finished_at is not None

    until(over, f"{job} ends")
    return job


def running(job: Job) -> bool:
    return any(str(job.id) in worker.running for worker in Worker.objects.all())


def policy(name: str, **changes: Any) -> None:
    queues.create_queue(name)
    queues.configure(name, actor=None, source="system", **changes)


def test_limits__soft_then_hard__interrupt_the_handler_and_end_the_run(
    start_worker: Start, file: Path, pool: tuple[str, ...]
) -> None:
    policy("soft", soft_time_limit_s=0.2)
    policy("hard", time_limit_s=0.3)
    start_worker(*pool)
    soft = linger(file, queue="soft")
    ended(soft)
    assert (soft.state, soft.attempt, soft.crash_count) == ("DEAD_LETTER", 2, 0)
    assert soft.last_error["type"] == "SoftTimeLimitExceeded"
    assert [line for line in file.read_text().split() if line == "soft"] == ["soft"] * 2
    hard = linger(file, queue="hard", blocks=True)
    ended(hard)
    assert (hard.state, hard.attempt, hard.crash_count) == ("DEAD_LETTER", 2, 0)
    assert hard.last_error["type"] == "TimeLimitExceeded"
    after = [linger(file, takes_s=0.01) for _ in range(4)]
    assert {ended(job).state for job in after} == {"COMPLETED"}  # the lost slots are made good
    assert file.read_text().split().count("end") == len(after)


def test_cancel__running_jobs__by_a_look_and_by_force(
    start_worker: Start, file: Path, pool: tuple[str, ...]
) -> None:
    start_worker(*pool)
    looks, deaf = linger(file, checks=True), linger(file, blocks=True)
    until(lambda: running(looks) and running(deaf), "both run")
    waits = linger(file, checks=True)  # in the broker, or held by the worker: then it may still start
    for job in (looks, waits):
        cancelling.cancel(job, actor="ada", source="cli")
    cancelling.cancel(deaf, actor="ada", source="cli", force=True)
    for job in (looks, deaf, waits):
        ended(job)
        assert (job.state, job.crash_count) == ("CANCELLED", 0)
    with pytest.raises(cancelling.Over):
        cancelling.cancel(deaf, actor="ada", source="cli")
    assert ended(linger(file, takes_s=0.01)).state == "COMPLETED"
    assert file.read_text().split().count("end") == 1


def test_hard_limit__thread_does_not_come_back__worker_starts_anew(start_worker: Start, file: Path) -> None:
    policy("hard", time_limit_s=0.3)
    worker = start_worker(*POOLS["threads"])
    before = Worker.objects.get()
    innocent = linger(file, takes_s=2.0)
    stuck = enqueue(
        tasks.linger, {"file": str(file), "takes_s": EVER_S, "blocks": True}, queue="hard", max_retries=0
    )
    ended(stuck)
    until(lambda: Worker.objects.get(id=before.id).stuck == 1, "the worker's row tells")
    until(lambda: Worker.objects.filter(stopped_at=None).exclude(id=before.id).exists(), "a new worker")
    assert worker.process.poll() is None
    assert Worker.objects.get(stopped_at=None).pid == before.pid == worker.process.pid
    assert (ended(innocent).state, innocent.attempt) == ("COMPLETED", 1)
    assert ended(linger(file, takes_s=0.01)).state == "COMPLETED"
    assert {"thread_given_up", "worker_recycled"} <= worker.events()


def test_celerys_time_limit__passed_by_a_job__is_a_failed_attempt_and_no_crash(
    start_worker: Start, file: Path
) -> None:
    start_worker(*POOLS["prefork"], "--time-limit", "1")
    job = linger(file, blocks=True)
    ended(job)
    assert (job.state, job.attempt, job.crash_count, job.suspect) == ("DEAD_LETTER", 2, 0, False)
    assert job.last_error["type"] == "TimeLimitExceeded"
    assert ended(linger(file, takes_s=0.01)).state == "COMPLETED"


def test_async_handler__passes_its_soft_limit__is_cancelled(start_worker: Start, file: Path) -> None:
    policy("lingering_async", soft_time_limit_s=0.2)
    start_worker(*POOLS["threads"])
    job = enqueue(tasks.linger_async, {"file": str(file), "takes_s": EVER_S})
    ended(job)
    assert job.last_error["type"] == "SoftTimeLimitExceeded"
    assert file.read_text().split() == ["start", "cancelled"]
    assert ended(enqueue(tasks.linger_async, {"file": str(file), "takes_s": 0.01})).state == "COMPLETED"
