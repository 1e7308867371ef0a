"""The ledger's statements on the other databases: one life after another, and many hands reaching for one job."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections, transaction
from django.utils import timezone

from orm_app.databases import from_url
from queue_app import deadletter, enqueue, ledger, stats, wakeup, workers
from queue_app.models import Job, Worker
from queue_app.uuid7 import uuid7

pytestmark = pytest.mark.service
ERROR = {"type": "OSError", "message": "no", "traceback": ""}


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest, django_db_blocker: Any) -> Iterator[None]:
    """A private server, migrated, as Django's default database."""
    if request.param == "mariadb" and not importlib.util.find_spec("MySQLdb"):
        pytest.skip("mysqlclient is not installed")
    url = request.getfixturevalue(f"{request.param}_url")
    before = connections.settings["default"], connections["default"]
    connections.settings["default"] = connections.configure_settings({"default": from_url(url)})["default"]
    del connections["default"]
    with django_db_blocker.unblock():
        call_command("migrate", verbosity=0)
        yield
        connections["default"].close()
        if connections["default"].vendor == "postgresql":
            connections["default"].close_pool()
    connections.settings["default"], connections["default"] = before


@pytest.fixture(autouse=True)
def empty(server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeup, "publish", lambda wakeups: True)
    Job.objects.all().delete()
    Worker.objects.all().delete()


def new_worker() -> Worker:
    return workers.register(uuid7(), pool="threads", concurrency=1, queues=["traces"])


def test_ledger__fail_retry_dead_replay_complete__every_step_holds() -> None:
    worker = new_worker()
    job = enqueue("email_queue", {"to": "a@example.com"}, max_retries=1)
    claimed = ledger.claim(job.id, worker.id)
    assert claimed is not None
    assert ledger.claim(job.id, worker.id) is None
    assert ledger.retry(claimed, ERROR, 30)
    assert ledger.claim(job.id, worker.id) is None  # not due
    assert ledger.due() == []
    Job.objects.update(run_after=timezone.now() - timedelta(seconds=1))
    assert [found.id for found in ledger.due()] == [job.id]
    again = ledger.claim(job.id, worker.id)
    assert again is not None
    assert ledger.bury(again, ERROR)
    deadletter.replay(Job.objects.get(id=job.id), actor="ada", source="cli")
    last = ledger.claim(job.id, worker.id)
    assert last is not None
    assert ledger.complete(last, {"ok": True})
    steps = [
        "PENDING",
        "PROCESSING",
        "FAILED",
        "PROCESSING",
        "DEAD_LETTER",
        "PENDING",
        "PROCESSING",
        "COMPLETED",
    ]
    assert list(job.events.values_list("to_state", flat=True)) == steps


def test_ledger__lease_ends__job_is_released_and_the_late_end_refused() -> None:
    worker = new_worker()
    job = enqueue("email_queue", {"to": "a@example.com"})
    late = ledger.claim(job.id, worker.id)
    assert late is not None
    assert ledger.release_lost(max_crashes=3) == []
    workers.leave(worker.id)
    assert [released.id for released in ledger.release_lost(max_crashes=3)] == [job.id]
    assert not ledger.complete(late, None)
    assert ledger.claim(job.id, worker.id) is None
    assert workers.beat(worker.id, [])
    assert ledger.claim(job.id, worker.id) is not None


def test_stale__published_long_ago__is_found_by_the_servers_clock() -> None:
    job = enqueue("email_queue", {"to": "a@example.com"})
    assert ledger.stale_queues(10) == []
    Job.objects.update(published_at=timezone.now() - timedelta(seconds=20))
    assert ledger.stale_queues(10) == ["email_queue"]
    assert [found.id for found in ledger.stale("email_queue", 10)] == [job.id]
    assert ledger.stale_queues(10) == []
    (depth,) = [depth for depth in stats.depths() if depth.queue == "email_queue"]
    assert depth.jobs["PENDING"] == 1
    assert 0 <= depth.oldest_due_s < 60


def test_claim__eight_threads_at_once__one_gets_it() -> None:
    worker = new_worker()
    job = enqueue("email_queue", {"to": "a@example.com"})
    start, got = threading.Barrier(8), []

    def reach() -> None:
        try:
            start.wait(10)
            got.append(ledger.claim(job.id, worker.id))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=reach) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(got) == 8
    assert [claimed.fence for claimed in got if claimed] == [1]


def test_due__two_reconcilers_at_once__share_the_work() -> None:
    for _ in range(4):
        enqueue("email_queue", {"to": "a@example.com"})
    Job.objects.update(published_at=None)
    with transaction.atomic():
        first = Job.objects.select_for_update().order_by("id")[:1].get()
        seen: list[Any] = []

        def other() -> None:
            try:
                seen.extend(wakeup.id for wakeup in ledger.due())
            finally:
                connections.close_all()

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(30)
    assert len(seen) == 3
    assert first.id not in seen
