"""What a real worker does with jobs: their ends, their retries, its log; and without its tables."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from queue_app import enqueue

from .conftest import POOLS, ROOT, WorkerProcess, environment, until
from .jobs_app import tasks
from .traces import open_jobs, trace

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

Start = Callable[..., WorkerProcess]
THREADS = POOLS["threads"]


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
    assert sorted(file.read_text().split()) == ["7", "9", "9", "9"]  # slots run beside each other

    def said() -> dict[str, Any]:
        return {line["event"]: line for line in worker.lines() if line.get("job_id") == str(good.id)}

    until(lambda: {"job_started", "job_completed"} <= set(said()), "the log tells of it")
    assert said()["job_started"]["request_id"] == said()["job_completed"]["request_id"] == "r-7"


def test_worker__database_is_not_migrated__says_so_and_exits_1(tmp_path: Path, valkey: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "brain_project", "worker", "-P", "solo"],
        cwd=ROOT,
        env=os.environ | environment() | {"DATABASE_URL": f"sqlite:///{tmp_path}/empty.sqlite3"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "run `manage.py migrate`" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
