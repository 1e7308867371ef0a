"""The work of the drills: each leaves evidence of every run, some of it in the transaction of its end."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from celery import shared_task
from django.db import connection

from queue_app import task
from queue_app.runs import Run

QUEUE = "drill"
LIMITED = "limited"


@task(queue=QUEUE, name="drills.effect")
def effect(payload: dict[str, Any], job: Run) -> None:
    """One row in the transaction that completes the job."""
    time.sleep(payload["takes_s"])
    with job.atomic():
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO drill_effect (job, fence, at) VALUES (%s, %s, %s)",
                [str(job.id), job.fence, time.monotonic()],
            )
        time.sleep(0.001)  # so that a kill may find the transaction open


@task(queue=QUEUE, name="drills.line")
def line(payload: dict[str, Any], job: Run) -> None:
    time.sleep(payload["takes_s"])
    append(payload["file"], str(job.id), job.fence)


@task(queue=QUEUE, name="drills.kill_process")
def kill_process(payload: dict[str, Any]) -> None:
    """In a prefork pool: one child."""
    os.kill(os.getpid(), signal.SIGKILL)


@task(queue=QUEUE, name="drills.kill_worker")
def kill_worker(payload: dict[str, Any]) -> None:
    """The whole worker, which is a process group of its own; refused where it would be more than that."""
    if os.getsid(0) == os.getpgrp() and os.getpgrp() != payload["drill"]:
        os.killpg(os.getpgrp(), signal.SIGKILL)


@task(queue=QUEUE, name="drills.link")
def link(payload: dict[str, Any], job: Run) -> int:
    """One of a workflow: answers its number, and tells when it was not handed what the jobs before it answered."""
    time.sleep(payload["takes_s"])
    _compare(payload, job)
    append(payload["file"], str(job.id), job.fence)
    return int(payload["number"])


@task(queue=QUEUE, name="drills.callback")
def callback(payload: dict[str, Any], job: Run) -> None:
    """Its one row is in the transaction that completes it."""
    _compare(payload, job)
    effect(payload, job)


@task(queue=QUEUE, name="drills.breaks", max_retries=0)
def breaks(payload: dict[str, Any], job: Run) -> int:
    """A dead letter, until a file says that its cause is mended."""
    if not os.path.exists(f"{payload['file']}.mended"):
        raise ValueError("not mended yet")
    return link(payload, job)


def _compare(payload: dict[str, Any], job: Run) -> None:
    """expects: the numbers of those before it; none where only some of them have ended."""
    if payload["expects"] is not None and job.previous_results() != payload["expects"]:
        _write(f"{payload['file']}.wrong", f"{job.id} {job.fence}\n")


@shared_task(name="drills.broker_line", bind=True, queue=QUEUE)
def broker_line(self: Any, file: str, takes_s: float) -> None:
    """A plain Celery task."""
    time.sleep(takes_s)
    append(file, self.request.id, 0)


def append(file: str, job: str, fence: int) -> None:
    _write(file, f"{job} {fence} {time.monotonic():.4f}\n")


def _write(file: str, line: str) -> None:
    """One O_APPEND write of less than a page: no line is torn, whatever happens to the process."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


@task(queue=LIMITED, name="drills.span")
def span(payload: dict[str, Any], job: Run) -> None:
    """Says when it starts and ends, and in which process."""
    _tell(payload, "start", job)
    time.sleep(payload["takes_s"])
    _tell(payload, "end", job)
    append(payload["file"], str(job.id), job.fence)


def _tell(payload: dict[str, Any], what: str, job: Run) -> None:
    _write(f"{payload['file']}.spans", f"{what} {os.getpgrp()} {job.id} {job.fence} {time.monotonic():.4f}\n")
