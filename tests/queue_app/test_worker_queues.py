"""Which queues a worker consumes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from queue_app import enqueue, queues
from queue_app.models import Worker

from .conftest import POOLS, WorkerProcess, until
from .traces import state, trace

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

Start = Callable[..., WorkerProcess]
THREADS = POOLS["threads"]


def test_given_queues__jobs_elsewhere__are_left_alone(start_worker: Start, file: Path) -> None:
    start_worker(*THREADS, "-Q", "traces")
    elsewhere, here = enqueue("async_traces", {"number": 1}), trace(file)
    until(lambda: state(here) == "COMPLETED", "its own queue is consumed")
    assert Worker.objects.get().queues == ["traces"]
    assert state(elsewhere) == "PENDING"


def test_queue_command__queue_is_made_paused_and_resumed__is_followed(
    start_worker: Start, file: Path
) -> None:
    start_worker("-c", "2", command=["manage.py", "queue"])
    queues.create_queue("made_later")
    job = trace(file, queue="made_later")
    until(lambda: state(job) == "COMPLETED", "the new queue is consumed")
    until(lambda: "made_later" in Worker.objects.get().queues, "the worker says so")
    queues.configure("made_later", paused=True, actor="ada", source="cli")
    until(lambda: "made_later" not in Worker.objects.get().queues, "the queue is put down")
    job = trace(file, queue="made_later")
    time.sleep(1)
    assert state(job) == "PENDING"
    queues.configure("made_later", paused=False, actor="ada", source="cli")
    until(lambda: state(job) == "COMPLETED", "the queue is taken up")
