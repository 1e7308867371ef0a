"""The customer's snippet with only its import line changed, in a process of its own and run by a real worker there."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from queue_app import (
    Priority,
    QueueConfig,
    WorkerConfig,
    initialize_message_queue,
    message_queue,
    queues,
    registry,
    task,
)
from queue_app.models import Job, Queue
from tests import warm

from .conftest import ROOT, environment

IMPORTS = "from queue_app import initialize_message_queue, Priority, QueueConfig, WorkerConfig"
SNIPPET = """
# Initialize message queue
mq = initialize_message_queue()

# Create queues
mq.create_queue(QueueConfig("email_queue", max_retries=3))
mq.create_queue(QueueConfig("data_processing", max_retries=2))

# Create worker
worker = mq.create_worker(WorkerConfig(
    worker_id="demo_worker",
    queue_names=["email_queue", "data_processing"],
    max_concurrent_tasks=5
))

# Register handlers
async def email_handler(payload):
    # Send email logic
    return {"status": "sent"}

worker.register_handler("email_queue", email_handler)

# Enqueue tasks
task_id = await mq.enqueue_task("email_queue", {
    "to": "user@example.com",
    "subject": "Welcome!"
}, priority=Priority.HIGH)
"""
# What the program around the snippet does: serve until the job is over.
SERVE = """
from queue_app.models import Job

async def state():
    return await Job.objects.values_list("state", flat=True).aget(id=task_id)

for again in range(2):
    serving = asyncio.ensure_future(worker.start())
    while await state() != "COMPLETED":
        await asyncio.sleep(0.05)
        assert not serving.done(), serving
    try:
        await mq.create_worker(WorkerConfig("second", ["email_queue"])).start()
    except RuntimeError as error:
        print("second:", error)
    await worker.stop()
    await serving
    task_id = await mq.enqueue_task("email_queue", {"again": again})
print("stopped")
"""

pytestmark = pytest.mark.django_db(transaction=True)


def program(*parts: str) -> str:
    body = textwrap.indent("".join(parts), "    ")
    return f"import asyncio\n{IMPORTS}\n\nasync def main():\n{body}\n\nasyncio.run(main())\n"


def run(source: str, where: Path) -> subprocess.CompletedProcess[str]:
    file = where / "app.py"
    file.write_text(source)
    env = os.environ | environment() | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    return warm.run(
        [sys.executable, str(file)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=90
    )


@pytest.mark.slow
def test_snippet__served_by_its_own_worker__completes(tmp_path: Path) -> None:
    before = set(Job.objects.values_list("id", flat=True))  # of other modules' tests
    done = run(program(SNIPPET, SERVE), tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "second: a worker runs in this process already" in done.stdout
    assert done.stdout.splitlines()[-1] == "stopped"
    # By name: the worker also fires what another module's schedules are due for.
    made = Job.objects.exclude(id__in=before).filter(name__endswith=".handler")
    first, second, waiting = made.order_by("id")
    assert (first.name, first.queue, first.priority) == ("email_queue.handler", "email_queue", Priority.HIGH)
    assert first.payload == {"to": "user@example.com", "subject": "Welcome!"}
    assert (first.state, first.result, first.max_attempts) == ("COMPLETED", {"status": "sent"}, 4)
    assert (second.state, waiting.state) == ("COMPLETED", "PENDING")
    limits = dict(Queue.objects.values_list("name", "max_retries"))
    assert (limits["email_queue"], limits["data_processing"]) == (3, 2)


@pytest.mark.parametrize("fails", [False, True])
def test_worker__has_ended__the_next_may_start_when_it_is_told(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    told: list[tuple[str, bool]] = []

    class Loop:
        def call_soon_threadsafe(self, tell: Any, *_: object) -> None:
            told.append((tell, message_queue._embedded.locked()))

    worker = initialize_message_queue().create_worker(WorkerConfig("w", ["mails"]))
    monkeypatch.setattr(worker, "_run", lambda: 1 // 0 if fails else 0)
    assert message_queue._embedded.acquire(blocking=False)
    ended: Any = SimpleNamespace(set_exception="set_exception", set_result="set_result")
    worker._serve(cast(Any, Loop()), ended)
    assert told == [("set_exception" if fails else "set_result", False)]


async def test_enqueue_task__no_handler_here__is_stored_for_the_worker_that_has_it() -> None:
    mq = initialize_message_queue()
    mq.create_queue(QueueConfig("far_away", max_retries=2))
    assert not await Queue.objects.filter(name="far_away").aexists()  # only declared
    task_id = await mq.enqueue_task("far_away", {"n": 1}, delay=60)
    job = await Job.objects.aget(id=task_id)
    assert (job.name, job.queue, job.max_attempts) == ("far_away.handler", "far_away", 3)
    await Queue.objects.filter(name="far_away").aupdate(max_retries=9)
    mq.create_queue(QueueConfig("far_away", max_retries=2))
    await mq.enqueue_task("far_away", {}, delay=60)
    assert (await Queue.objects.aget(name="far_away")).max_retries == 9  # what an operator set stays


async def test_enqueue_task__queue_has_a_task__takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_tasks", {})
    task(name="mails.send", queue="mails")(lambda payload: None)
    job = await Job.objects.aget(id=await initialize_message_queue().enqueue_task("mails", {}, delay=60))
    assert job.name == "mails.send"


async def test_enqueue_task__unknown_queue__is_refused() -> None:
    with pytest.raises(queues.UnknownQueue, match="nobody's"):
        await initialize_message_queue().enqueue_task("nobody's", {})
    assert await Job.objects.acount() == 0


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda mq: mq.create_queue(QueueConfig("no spaces")), "cannot name a queue"),
        (lambda mq: mq.create_queue(QueueConfig("mails", max_retries=-1)), "max_retries"),
        (lambda mq: mq.create_worker(WorkerConfig("w", [])), "at least one queue"),
        (lambda mq: mq.create_worker(WorkerConfig("w", ["mails"], 0)), "one task at a time"),
        (
            lambda mq: mq.create_worker(WorkerConfig("w", ["mails"])).register_handler("males", print),
            "but mails",
        ),
    ],
)
def test_configs__bad_value__is_refused_at_once(act: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        act(initialize_message_queue())
