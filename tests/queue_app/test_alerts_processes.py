"""Who looks at the alerts' rules: a worker, and `celery beat` when no worker is left; one of them killed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from queue_app import clock, enqueue, queues
from queue_app.models import Alert, Job, Notice, Worker

from .alert_flows import forget, rule
from .conftest import WorkerProcess, until
from .jobs_app import tasks
from .receivers import Receiver, receiver
from .test_schedules_processes import start_beat as start_beat

pytestmark = pytest.mark.slow


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiver() as one:
        monkeypatch.setenv("BRAIN_ALERT_WEBHOOKS", one.url)
        yield one


def told(hook: Receiver) -> list[str]:
    return [f"{one['kind']} {one['rule']}" for seen in hook.received for one in seen.body["alerts"]]


def late(file) -> Job:
    job = enqueue(tasks.trace, {"file": str(file), "number": 1}, delay=3600)
    past = clock.now() - timedelta(seconds=600)
    Job.objects.filter(id=job.id).update(run_after=past, created_at=past)
    return job


def test_beat__last_worker_killed__tells_that_none_is_left_and_that_one_is_back(
    hook: Receiver,
    start_worker: Callable[..., WorkerProcess],
    short_leases: None,
    start_beat: Callable[[], WorkerProcess],
    file,
) -> None:
    forget()
    rule("no_worker", threshold=60)
    start_beat()
    worker = start_worker("-P", "threads", "-c", "2")
    until(lambda: Worker.objects.exists(), "the worker is there")
    worker.signal(signal.SIGKILL)
    late(file)
    until(lambda: told(hook), "somebody is told", 90)
    assert told(hook) == ["firing no_worker"]
    start_worker("-P", "threads", "-c", "2")
    until(lambda: len(told(hook)) > 1, "the end is told", 90)
    assert told(hook) == ["firing no_worker", "resolved no_worker"]
    assert Alert.objects.get().notices == 2


def test_workers__the_one_that_looks_is_killed__another_goes_on_and_tells_nothing_twice(
    hook: Receiver, start_worker: Callable[..., WorkerProcess], short_leases: None, file
) -> None:
    forget()
    queues.create_queue("parked")
    rule("latency", threshold=60, queue="parked", name="parked")
    first = start_worker("-P", "threads", "-c", "1", "-Q", "default")
    job = late(file)
    Job.objects.filter(id=job.id).update(queue="parked")
    until(lambda: told(hook) and Notice.objects.filter(sent_at__isnull=False).exists(), "the first has told")
    first.signal(signal.SIGKILL)
    start_worker("-P", "threads", "-c", "1", "-Q", "default")
    Job.objects.filter(id=job.id).delete()
    until(lambda: len(told(hook)) > 1, "the second tells", 90)
    assert told(hook) == ["firing parked", "resolved parked"]
