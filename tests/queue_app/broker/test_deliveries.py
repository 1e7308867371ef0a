"""A queue's delivery wins over the caller's way; priorities have one scale."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery import current_app, group
from django.db import transaction

from queue_app import conditions, deadletter, enqueue, policies, queues, shared_tasks, states, wakeup
from queue_app.broker import descriptions, handlers, stream
from queue_app.models import Job
from queue_app.payloads import BadPayload

from .conftest import WorkerProcess, call, ended
from .tasks_app import tasks

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., WorkerProcess]


@pytest.fixture
def queue(prefix: str) -> Iterator[str]:
    name = prefix.strip(":").replace(":", "-")
    queues.create_queue(name)
    yield name
    with current_app.connection_for_write() as connection:
        connection.default_channel.queue_delete(name)


@pytest.fixture
def ledger_queue(queue: str) -> str:
    queues.configure(queue, delivery="ledger", actor=None, source="system")
    return queue


def messages(queue: str) -> list[Any]:
    """What waits in the queue, the most urgent first."""
    found = []
    with current_app.connection_for_read() as connection:
        channel = connection.default_channel
        while (message := channel.basic_get(queue, no_ack=True)) is not None:
            found.append(message)
    return found


def test_delay__queue_says_ledger__stores_a_job_and_returns_its_id(ledger_queue: str) -> None:
    id = str(uuid4())
    answer = tasks.add.apply_async((1,), {"b": 2}, queue=ledger_queue, task_id=id, priority=9, expires=60)
    job = Job.objects.get()
    assert (answer.id, str(job.id), job.name, job.delivery) == (id, id, "plain.add", "ledger")
    assert (job.payload, job.priority, job.max_attempts) == ({"args": [1], "kwargs": {"b": 2}}, 9, 4)
    assert job.expires_at is not None
    assert [message.headers for message in messages(ledger_queue)] == [{"task": wakeup.RUN, "id": id}]


def test_delay__queue_says_ledger__countdown_is_kept_in_the_row(ledger_queue: str) -> None:
    tasks.add.apply_async((1, 2), queue=ledger_queue, countdown=60)
    job = Job.objects.get()
    assert job.run_after is not None
    assert timedelta(seconds=50) < job.run_after - job.created_at < timedelta(seconds=70)
    assert messages(ledger_queue) == []


def test_delay__queue_says_ledger__is_in_the_callers_transaction(ledger_queue: str) -> None:
    with pytest.raises(KeyError), transaction.atomic():
        tasks.add.apply_async((1, 2), queue=ledger_queue)
        raise KeyError
    assert not Job.objects.exists()
    assert messages(ledger_queue) == []


def test_delay__arguments_are_not_json__nothing_is_stored(ledger_queue: str) -> None:
    with pytest.raises(BadPayload):
        tasks.add.apply_async((1, {uuid4()}), queue=ledger_queue)
    assert not Job.objects.exists()


def test_delay__part_of_a_workflow__stays_with_the_broker(ledger_queue: str) -> None:
    tasks.add.apply_async((1, 2), queue=ledger_queue, link=tasks.add.s(3))
    group(tasks.add.s(1, 2)).apply_async(queue=ledger_queue)
    assert not Job.objects.exists()
    assert len(messages(ledger_queue)) == 2


async def test_delay__in_a_coroutine__asks_for_the_delivery_on_a_thread(queue: str) -> None:
    await asyncio.sleep(0)
    policies.forget()
    tasks.add.apply_async((1, 2), queue=queue)


def test_send__each_priority__is_served_by_its_class_and_normal_is_not_the_most_urgent(queue: str) -> None:
    for priority in (None, 9, 0, 6):
        tasks.add.apply_async((priority, 1), queue=queue, priority=priority)
    found = messages(queue)
    assert [message.headers["brain"]["priority"] for message in found] == [9, 6, 3, 0]
    assert [message.properties["priority"] for message in found] == [0, 3, 6, 9]
    with pytest.raises(ValueError, match="0 to 9"):
        tasks.add.apply_async((1, 1), queue=queue, priority=10)


def test_send__with_our_transport__event_is_in_the_stream_with_the_message(queue: str) -> None:
    with stream.client() as (client, key):
        client.delete(key)
        id = tasks.add.apply_async((1, 2), queue=queue).id
        ((_, fields),) = client.xrange(key)
    assert id.encode() in fields[b"e"]


@pytest.mark.slow
def test_broker_publish__registered_task__runs_with_its_rules_and_is_recorded(
    start: Start, tmp_path: Any
) -> None:
    file = str(tmp_path / "traces")
    ids = call(
        "from queue_app import queues\n"
        "from queue_app.broker import handlers\n"
        "from queue_app.uuid7 import uuid7\n"
        "import json\n"
        "queues.create_queue('fast')\n"
        "common = dict(name='jobs.trace', queue='fast', tenant='acme', priority=6, max_attempts=2, run_after=None,\n"
        "  expires_at=None, parent=None)\n"
        "ids = [uuid7(), uuid7()]\n"
        f"texts = [json.dumps({{'file': {file!r}, 'number': n, 'fails': n == 2}}) for n in (1, 2)]\n"
        "handlers.publish(common, ids, texts)\n"
        "answer = list(map(str, ids))"
    )
    start("-P", "threads", "-c", "2")
    good = ended(ids[0], "COMPLETED")
    assert (good.name, good.queue, good.tenant, good.priority) == ("jobs.trace", "fast", "acme", 6)
    assert (good.payload["number"], good.result, good.delivery) == (1, {"number": 1}, "broker")
    bad = ended(ids[1], "DEAD_LETTER")
    assert (bad.attempt, bad.last_error["type"], bad.max_attempts) == (2, "ConnectionError", 2)


@pytest.mark.slow
def test_worker__ledger_job_of_a_celery_task__calls_it(start: Start) -> None:
    queues.create_queue("strict")
    queues.configure("strict", delivery="ledger", actor=None, source="system")
    id = call("answer = tasks.add.apply_async((20, 22), queue='strict').id")
    start("-P", "threads", "-c", "2")
    job = ended(id, "COMPLETED")
    assert (job.delivery, job.result) == ("ledger", 42)
    assert UUID(id) == job.id
    assert states.State(job.state) == states.State.COMPLETED
    assert handlers.BROKER_RUN in current_app.tasks


def test_enqueue__queue_says_broker__sends_the_job_and_stores_no_row(queue: str) -> None:
    queues.configure(queue, delivery="broker", actor=None, source="system")
    with transaction.atomic():
        job = enqueue("plain.add", {"args": [1, 2]}, queue=queue)
        assert messages(queue) == []
    (message,) = messages(queue)
    assert (message.headers["id"], message.headers["task"]) == (str(job.id), "queue_app.broker_run")
    assert not Job.objects.exists()
    with pytest.raises(ValueError, match="unique cannot be had"):
        enqueue("plain.add", {"args": [1, 2]}, queue=queue, unique="once")


def test_replay__job_of_the_broker__waits_in_the_ledger_from_now_on(queue: str) -> None:
    common = {"name": "plain.add", "queue": queue, "priority": 3, "max_attempts": 1, "delivery": "broker"}
    dead = Job.objects.create(
        id=uuid4(), payload={"args": [1], "kwargs": {"b": 2}}, state="DEAD_LETTER", **common
    )
    deadletter.replay(dead, actor="ada", source="cli")
    assert [wakeup.id for wakeup in conditions.waiting().values_list("id", named=True)] == [dead.id]
    lost = Job.objects.create(id=uuid4(), payload={"not_kept": "too large"}, state="DEAD_LETTER", **common)
    with pytest.raises(deadletter.NotKept):
        deadletter.replay(lost, actor="ada", source="cli")


KEPT = [
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    date(2026, 1, 2),
    Decimal("1.10"),
    UUID(int=7),
    b"bytes",
    [{"deep": {"in": [Decimal("0.3")]}}],
]


def test_replay__typed_arguments_of_a_broker_job__keep_their_types() -> None:
    text = descriptions.payload({"args": KEPT, "kwargs": {"at": KEPT[0]}}, max_bytes=10_000)
    row = Job.objects.create(
        id=uuid4(), name="t", queue="q", priority=3, max_attempts=1, payload=json.loads(text)
    )
    args, kwargs = shared_tasks.arguments(lambda *a, **kw: None, Job.objects.get(id=row.id).payload)
    assert (args, kwargs) == (KEPT, {"at": KEPT[0]})


@pytest.mark.parametrize("value", [{"hex": "no uuid"}, "x", None])
def test_arguments__value_that_its_type_cannot_read__is_a_bad_payload(value: Any) -> None:
    typed = {"__type__": "uuid", "__value__": value}
    with pytest.raises(BadPayload, match="__type__"):
        shared_tasks.arguments(lambda a: None, {"args": [typed], "kwargs": {}})
    with pytest.raises(BadPayload, match="__type__"):
        shared_tasks.arguments(lambda a: None, {"args": [typed | {"__type__": "unheard of"}], "kwargs": {}})


@pytest.mark.slow
def test_replay__dead_broker_job_with_a_date__runs_with_a_date(start: Start) -> None:
    id = call("import datetime\nanswer = tasks.weekday.delay(datetime.date(2026, 1, 2), dead=True).id")
    start("-P", "threads", "-c", "2")
    dead = ended(id, "DEAD_LETTER")
    Job.objects.filter(id=id).update(payload={**dead.payload, "kwargs": {"dead": False}})
    dead.refresh_from_db()
    deadletter.replay(dead, actor="ada", source="cli")
    assert ended(id, "COMPLETED").result == 4
