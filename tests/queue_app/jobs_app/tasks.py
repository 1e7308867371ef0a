"""Handlers that leave a trace in a file, for workers that run in processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection

from queue_app import Retry, aadd_to_batch, aenqueue, call, ledger, task
from queue_app.models import Job
from queue_app.runs import Run


@task(queue="traces", name="jobs.trace", max_retries=2, backoff_base_s=0.01)
def trace(payload: dict[str, Any]) -> dict[str, Any]:
    """Append the number to the file, after a while or once the gate is there; fails when told to."""
    time.sleep(payload.get("takes_s", 0))
    wait_for(payload)
    with Path(payload["file"]).open("a") as out:
        out.write(f"{payload['number']}\n")
    if payload.get("fails"):
        raise ConnectionError("refused by the test")
    return {"number": payload["number"]}


@task(queue="async_traces", name="jobs.async_trace")
async def async_trace(payload: dict[str, Any], job: Run) -> str:
    await asyncio.sleep(0)
    return f"{job.name} {payload['number']}"


@task(queue="killers", name="jobs.kill_own_process")
def kill_own_process(payload: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task(queue="lingering", name="jobs.linger", max_retries=1, backoff_base_s=0.01)
def linger(payload: dict[str, Any], job: Run) -> str:
    """Start, stay for a while in small steps or in one that nothing interrupts, and say how it went in the file."""
    tell(payload, f"start {os.getpid()}")
    try:
        wait_for(payload)
        if payload.get("blocks"):
            time.sleep(payload["takes_s"])
        until = time.monotonic() + payload.get("takes_s", 0)
        while time.monotonic() < until:
            time.sleep(0.01)
            if payload.get("checks"):
                job.check()
    except SoftTimeLimitExceeded:
        tell(payload, "soft")
        raise
    tell(payload, "end")
    return "stayed"


@task(queue="lingering_async", name="jobs.linger_async", max_retries=0)
async def linger_async(payload: dict[str, Any]) -> None:
    tell(payload, "start")
    try:
        await asyncio.sleep(payload["takes_s"])
    except asyncio.CancelledError:
        tell(payload, "cancelled")
        raise
    tell(payload, "end")


@task(queue="connections", name="jobs.look_at_connection")
def look_at_connection(payload: dict[str, Any]) -> list[int]:
    """The process and the inode of its database connection's socket."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return [os.getpid(), os.fstat(connection.connection.fileno()).st_ino]


@task(queue="saboteurs", name="jobs.break_engine")
def break_engine(payload: dict[str, Any]) -> None:
    """The next exchange with the ledger ends the engine's thread with an error that it does not expect."""

    def fails(*arguments: Any) -> Any:
        raise RuntimeError("broken by the test")

    ledger.exchange = fails


@shared_task(name="jobs.stock_trace")
def stock_trace(file: str, number: int, takes_s: float = 0) -> None:
    """One of Celery's own."""
    time.sleep(takes_s)
    tell({"file": file}, str(number))


def wait_for(payload: dict[str, Any]) -> None:
    """Until the file that is named as the gate is there."""
    while "gate" in payload and not Path(payload["gate"]).exists():
        time.sleep(0.01)


def tell(payload: dict[str, Any], line: str) -> None:
    with Path(payload["file"]).open("a") as out:
        out.write(f"{line}\n")


@task(queue="features", name="jobs.echo", secret_fields=["card.number"])
def echo(payload: dict[str, Any]) -> dict[str, Any]:
    return {"card": payload.get("card"), "length": len(payload.get("text", ""))}


@task(queue="features", name="jobs.breed")
async def breed(payload: dict[str, Any], job: Run) -> list[int]:
    """Reads with the ORM, enqueues a child; the first run asks for another."""
    found = await Job.objects.filter(id=job.id).acount()
    if job.attempt == 1:
        raise Retry("once more", after=0)
    await aenqueue(echo, {"text": "child"}, unique=f"child of {job.id}")
    await aenqueue(echo, {"text": "child"}, unique=f"child of {job.id}")
    return [found, job.attempt]


@task(queue="features", name="jobs.outstay", soft_time_limit_s=0.5, never_retry_on=[SoftTimeLimitExceeded])
async def outstay(payload: dict[str, Any]) -> None:
    await asyncio.sleep(60)


@task(queue="flows", name="jobs.number")
def number(payload: dict[str, Any]) -> int:
    time.sleep(payload.get("takes_s", 0))
    return payload["n"]


@task(queue="flows", name="jobs.total")
def total(payload: dict[str, Any], job: Run) -> int:
    """Of what the jobs before it have answered."""
    return sum(job.previous_results())


@task(queue="flows", name="jobs.atotal")
async def atotal(payload: dict[str, Any], job: Run) -> int:
    return sum(await job.aprevious_results())


@task(queue="flows", name="jobs.grow")
async def grow(payload: dict[str, Any], job: Run) -> int:
    """Puts as many more into its own batch."""
    if payload["more"]:
        await aadd_to_batch(job.workflow, *[call(grow, {"more": 0})] * payload["more"])
    return 1
