"""Workers and callers in processes of their own, with plain Celery tasks."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from queue_app.models import Job, JobEvent
from tests import warm
from tests.queue_app.conftest import CELERY, ROOT, WorkerProcess, until

SETTINGS = "tests.queue_app.broker.settings"


def database_url() -> str:
    return f"sqlite:///{connection.settings_dict['NAME']}"


def environment(**changes: str) -> dict[str, str]:
    """For a process of the site on this test's database and Valkey."""
    own = {
        "DJANGO_SETTINGS_MODULE": SETTINGS,
        "DATABASE_URL": database_url(),
        "REDIS_URL": settings.REDIS_URL,
        "BRAIN_LOG_JSON": "1",
    }
    return os.environ | own | changes


@pytest.fixture
def start(
    tmp_path: Path, transactional_db: None, empty_valkey: None
) -> Iterator[Callable[..., WorkerProcess]]:
    """start("-P", "threads", BROKER_URL=…) → a ready worker; gone when the test ends."""
    started: list[WorkerProcess] = []

    def worker(*arguments: str, **env: str) -> WorkerProcess:
        log = tmp_path / f"worker-{len(started)}.log"
        begun = WorkerProcess([*CELERY, *arguments], log, environment(**env))
        started.append(begun)
        until(lambda: "ready." in begun.log or begun.process.poll() is not None, "the worker is ready")
        assert begun.process.poll() is None, begun.log
        return begun

    yield worker
    for begun in started:
        begun.kill()


def call(code: str, **env: str) -> Any:
    """Run code in a process of the site, as a caller; what it assigns to `answer` comes back."""
    script = (
        "import django, json; django.setup()\n"
        "import brain_project.celery\n"
        "from celery import chord, group, signature\n"
        "from tests.queue_app.broker.tasks_app import tasks\n"
        f"answer = None\n{code}\nprint('ANSWER', json.dumps(answer))"
    )
    done = warm.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("ANSWER ")[2])


def ended(id: str, state: str) -> Job:
    """The job, once it has come to this state."""
    return until(lambda: Job.objects.filter(id=id, state=state).first(), f"{id} is {state}")


def history(id: str) -> list[str]:
    return list(JobEvent.objects.filter(job_id=id).order_by("at", "id").values_list("state", flat=True))
