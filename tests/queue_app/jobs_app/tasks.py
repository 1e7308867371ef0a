"""Handlers that leave a trace in a file, for workers that run in processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from queue_app import task
from queue_app.runs import Run


@task(queue="traces", name="jobs.trace", max_retries=2, backoff_base_s=0.01)
def trace(payload: dict[str, Any]) -> dict[str, Any]:
    """Append the number to the file, after a while; fails when told to."""
    time.sleep(payload.get("takes_s", 0))
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
