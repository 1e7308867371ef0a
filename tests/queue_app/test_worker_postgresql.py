"""Prefork on PostgreSQL, where a connection that two processes share would break both: children have their own."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from queue_app import enqueue
from queue_app.models import Job, Worker

from .conftest import POOLS, TIMEOUT_S, WorkerProcess, until
from .jobs_app import tasks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.service,
    pytest.mark.django_db(transaction=True),
    pytest.mark.parametrize("_database", ["postgresql"], indirect=True),
]

Start = Callable[..., WorkerProcess]


def sockets(pid: int) -> set[int]:
    """Inodes of the sockets that a process has open."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(descriptor) if descriptor.is_symlink() else ""
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found


def test_prefork__children_come_and_go__none_uses_a_connection_of_its_parent(
    every_database: None, start_worker: Start, file: Path
) -> None:
    worker = start_worker(*POOLS["prefork"], "--max-tasks-per-child", "3")
    jobs = [enqueue(tasks.look_at_connection, {}) for _ in range(12)]
    until(lambda: not Job.objects.exclude(state="COMPLETED").exists(), "all complete")
    results = Job.objects.filter(id__in=[job.id for job in jobs]).values_list("result", flat=True)
    per_child = Counter(pid for pid, _ in results)
    assert len(per_child) >= 4
    assert max(per_child.values()) <= 3
    assert not {inode for _, inode in results} & sockets(worker.process.pid)

    poison = enqueue(tasks.kill_own_process, {})
    outlasts = enqueue(tasks.linger, {"file": str(file), "takes_s": 600, "blocks": True})
    until(lambda: Job.objects.get(id=poison.id).state == "DEAD_LETTER", "the poison is stopped")
    for number in range(100):
        enqueue(tasks.trace, {"file": os.devnull, "number": number})
    until(lambda: Job.objects.filter(state="COMPLETED").count() > 15, "some of them ran")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(TIMEOUT_S) == 0
    outlasts.refresh_from_db()
    assert (outlasts.state, outlasts.crash_count) == ("PENDING", 0)
    assert not Job.objects.filter(state="PROCESSING").exists()
    assert Job.objects.exclude(crash_count=0).get().id == poison.id
    assert Worker.objects.get().stopped_at is not None
