"""Eager mode on every database: the same path as a worker's, in the process and the connections of the caller."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from celery.exceptions import WorkerShutdown
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, connections, transaction
from django.test import TestCase, override_settings
from django.utils import timezone

from brain_project import conf as site_conf
from foundation import request_id as request_ids
from queue_app import (
    aenqueue,
    call,
    chain,
    checks,
    enqueue,
    enqueue_many,
    enqueue_workflow,
    policies,
    queues,
    task,
    wakeup,
)
from queue_app.models import Job, JobEvent, Worker
from queue_app.runs import Run
from queue_app.testing import Drained, drain, eager, frozen_time, no_broker
from queue_app.worker import duties
from tests.queue_app import flows
from tests.queue_app.testing import test_draining as kit

SEEN: list[Any] = []
every_database = pytest.mark.usefixtures("every_database", "_forgotten")


@pytest.fixture
def _forgotten(every_database: None) -> Iterator[None]:
    SEEN.clear()
    yield
    flows.forget()
    policies.forget()


@task(queue="kit_eager", name="kit.say", max_retries=1)
def say(payload: dict[str, Any], job: Run) -> Any:
    SEEN.append(payload["n"])
    for n in range(payload.get("children", 0)):
        enqueue(say, {"n": f"{payload['n']}.{n}"})
    SEEN.append(f"end of {payload['n']}")
    if payload.get("raises"):
        raise ConnectionError("refused")
    return [
        request_ids.current(),
        timezone.get_current_timezone_name(),
        job.worker.hex,
    ]


@every_database
def test_eager__commit__runs_the_job_before_enqueue_returns() -> None:
    with eager():
        job = enqueue(say, {"n": 1})
    assert job.state == "PENDING"
    job.refresh_from_db()
    assert (job.state, job.attempt, job.fence) == ("COMPLETED", 1, 1)
    assert list(JobEvent.objects.filter(job=job).values_list("state", flat=True)) == [
        "PENDING",
        "PROCESSING",
        "COMPLETED",
    ]
    assert not Worker.objects.exists()
    assert connection.connection is not None


@every_database
def test_eager__transaction__runs_when_it_commits_and_not_when_it_rolls_back() -> None:
    with eager():
        with transaction.atomic():
            enqueue(say, {"n": 1})
            assert SEEN == []
        assert SEEN == [1, "end of 1"]
        with pytest.raises(KeyError), transaction.atomic():
            enqueue(say, {"n": 2})
            raise KeyError
    assert SEEN == [1, "end of 1"]


@every_database
def test_eager__children__run_after_the_job_that_enqueues_them() -> None:
    with eager():
        parent = enqueue(say, {"n": "a", "children": 2})
    assert SEEN == ["a", "end of a", "a.0", "end of a.0", "a.1", "end of a.1"]
    assert Job.objects.filter(parent=parent.id, state="COMPLETED").count() == 2


@every_database
def test_eager__handler_fails__caller_hears_nothing_and_the_retry_waits() -> None:
    with eager(), frozen_time() as frozen:
        job = enqueue(say, {"n": 1, "raises": True})
        later = enqueue(say, {"n": 2}, delay=3600)
        job.refresh_from_db()
        assert (job.state, job.last_error["message"], SEEN) == ("FAILED", "refused", [1, "end of 1"])
        assert job.run_after >= frozen.now
        assert drain(with_retries=True) == Drained(dead=1)
        frozen.move(3600)
        assert drain() == Drained(completed=1)
        later.refresh_from_db()
        assert later.finished_at == frozen.now


@every_database
def test_eager__context__is_a_workers_and_the_callers_is_left_as_it_was() -> None:
    with eager(), request_ids.bound("r-9"), timezone.override("Asia/Tokyo"):
        job = enqueue(say, {"n": 1})
        assert (request_ids.current(), timezone.get_current_timezone_name()) == ("r-9", "Asia/Tokyo")
    job.refresh_from_db()
    assert job.result[:2] == ["r-9", "UTC"]


@every_database
def test_eager__payload__goes_through_json() -> None:
    given: dict[str, Any] = {"n": ("a", 1)}
    with eager():
        enqueue(say, given)
    assert SEEN == [["a", 1], "end of ['a', 1]"]
    with eager(), pytest.raises(ValueError, match="not JSON"):
        enqueue(say, {"n": object()})


@every_database
def test_eager__workflow_and_limited_queue__go_their_ways() -> None:
    queues.find("kit_eager")
    queues.configure("kit_eager", actor=None, source="system", max_concurrency=1)
    with eager():
        flow = enqueue_workflow(chain(call(say, {"n": 1}), call(say, {"n": 2})))
        enqueue_many(say, [{"n": n} for n in (3, 4, 5)])
    assert [n for n in SEEN if isinstance(n, int)] == [1, 2, 3, 4, 5]
    flow.refresh_from_db()
    assert (flow.status, Job.objects.exclude(turn=0).count()) == ("completed", 0)


@every_database
def test_eager__coroutines__enqueue_and_run() -> None:
    async def go() -> None:
        await aenqueue(kit.count, {})

    kit.SEEN.clear()
    with eager():
        async_to_sync(go)()
    assert (kit.SEEN, Job.objects.filter(state="COMPLETED").count()) == (["child"], 2)


@every_database
def test_eager__celery_task_on_a_ledger_queue__takes_the_same_way() -> None:
    queues.create_queue("default")
    queues.configure("default", actor=None, source="system", delivery="ledger")
    with eager(), frozen_time():
        kit.stock.delay(1)
    (job,) = Job.objects.all()
    assert (job.state, job.last_error["type"]) == ("FAILED", "Retry")


@every_database
def test_eager__another_thread_enqueues__it_runs_there() -> None:
    ran: list[str] = []

    def act() -> None:
        enqueue(say, {"n": threading.current_thread().name})
        connections.close_all()

    with eager():
        thread = threading.Thread(target=act, name="other")
        thread.start()
        thread.join(20)
    ran += [str(n) for n in SEEN]
    assert ran == ["other", "end of other"]


@pytest.mark.django_db(transaction=True)
def test_eager__job_that_enqueues_itself__does_not_keep_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    from queue_app import eager as mode

    monkeypatch.setattr(mode, "MOST", 5)
    with eager():
        enqueue(kit.again, {"delay": 0})
    assert Job.objects.filter(state="COMPLETED").count() == 5
    assert Job.objects.filter(state="PENDING").count() == 1


@pytest.mark.django_db(transaction=True)
def test_setting__eager__runs_without_a_context_and_gives_way_to_no_broker() -> None:
    SEEN.clear()
    with override_settings(BRAIN={"QUEUE": {"EAGER": True}}):
        enqueue(say, {"n": 1})
        with no_broker() as published:
            enqueue(say, {"n": 2})
        assert wakeup.publish(published.wakeups)
    assert [n for n in SEEN if isinstance(n, int)] == [1, 2]


def test_setting__eager__is_an_error_in_production_and_for_a_worker() -> None:
    assert checks.eager_is_off(None) == []
    with override_settings(BRAIN={"QUEUE": {"EAGER": True}}):
        (found,) = checks.eager_is_off(None)
        assert (found.id, "docs/checks.md#queue-e011" in found.hint) == ("queue.E011", True)
        site_conf.refuse_in_production()
        with pytest.raises(WorkerShutdown):
            duties._refuse_eager()
        with override_settings(PRODUCTION=True), pytest.raises(ImproperlyConfigured, match="EAGER"):
            site_conf.refuse_in_production()


class TestInDjangosTestCase(TestCase):
    def test_eager__capture_on_commit__runs_the_jobs_and_their_children(self) -> None:
        SEEN.clear()
        with eager():
            with self.captureOnCommitCallbacks(execute=True):
                enqueue(say, {"n": "a", "children": 1})
            assert SEEN == ["a", "end of a", "a.0", "end of a.0"]
            enqueue(say, {"n": "b"})
        assert len(SEEN) == 4
        assert drain() == Drained(completed=1)
