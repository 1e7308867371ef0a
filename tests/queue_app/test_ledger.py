from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from queue_app import deadletter, engine, enqueue, ledger, registry, wakeup, workers
from queue_app.models import Job, JobEvent, Worker
from queue_app.states import State
from queue_app.uuid7 import uuid7

pytestmark = pytest.mark.django_db
ERROR = {"type": "OSError", "message": "no", "traceback": ""}
PAYLOAD = {"to": "a@example.com", "subject": "hello", "task_id": 1}


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> list[ledger.Wakeup]:
    """The wake-ups that would go to the broker: these tests are about the rows."""
    messages: list[ledger.Wakeup] = []
    monkeypatch.setattr(wakeup, "publish", lambda wakeups: messages.extend(wakeups) or True)
    return messages


@pytest.fixture
def worker() -> Worker:
    return workers.register(uuid7(), pool="threads", concurrency=1, queues=["email_queue"])


def expire(worker: Worker) -> None:
    Worker.objects.filter(pk=worker.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def history(job: Job) -> list[str]:
    return list(JobEvent.objects.filter(job=job).values_list("to_state", flat=True))


def test_enqueue__transaction_commits__row_and_one_message(sent, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        job = enqueue("email_queue", PAYLOAD, request_id="r-1")
        assert sent == []
    assert [message.id for message in sent] == [job.id]
    row = Job.objects.get(pk=job.id)
    assert (row.state, row.request_id, row.queue, row.payload) == ("PENDING", "r-1", "email_queue", PAYLOAD)


@pytest.mark.django_db(transaction=True)
def test_enqueue__transaction_rolls_back__neither_row_nor_message(sent):
    with pytest.raises(LookupError), transaction.atomic():
        enqueue("email_queue", PAYLOAD)
        raise LookupError
    assert not Job.objects.exists()
    assert sent == []


@pytest.mark.parametrize(
    ("target", "payload", "options"),
    [
        ("no_such_queue", PAYLOAD, {}),
        ("email_queue", [1], {}),
        ("email_queue", PAYLOAD, {"priority": 10}),
        ("email_queue", PAYLOAD, {"delay_s": -1}),
        ("email_queue", PAYLOAD, {"max_retries": -1}),
    ],
)
def test_enqueue__bad_input__stores_nothing(target, payload, options):
    with pytest.raises(ValueError):
        enqueue(target, payload, **options)
    assert not Job.objects.exists()


def test_claim__message_comes_twice__second_one_gets_nothing(worker):
    job = enqueue("email_queue", PAYLOAD)
    claimed = ledger.claim(job.id, worker.id)
    assert claimed.fence == 1
    assert ledger.claim(job.id, worker.id) is None
    assert ledger.complete(claimed, {"status": "sent"})
    assert ledger.claim(job.id, worker.id) is None
    assert history(job) == ["PENDING", "PROCESSING", "COMPLETED"]


def test_claim__lease_has_ended_or_not_due__gets_nothing(worker):
    later = enqueue("email_queue", PAYLOAD, delay_s=60)
    assert ledger.claim(later.id, worker.id) is None
    job = enqueue("email_queue", PAYLOAD)
    expire(worker)
    assert ledger.claim(job.id, worker.id) is None


def test_complete__job_was_given_to_another_worker__fence_refuses_the_late_end(worker):
    job = enqueue("email_queue", PAYLOAD)
    late = ledger.claim(job.id, worker.id)
    expire(worker)
    assert [released.id for released in ledger.release_lost(max_crashes=3)] == [job.id]
    other = workers.register(uuid7(), pool="threads", concurrency=1, queues=[])
    current = ledger.claim(job.id, other.id)
    assert current.fence == 2
    assert ledger.complete(late, "late") is False
    assert ledger.complete(current, "in time") is True
    row = Job.objects.get(pk=job.id)
    assert (row.result, row.crash_count) == ("in time", 1)


def test_release_lost__third_worker_dies__dead_letter(worker):
    job = enqueue("email_queue", PAYLOAD)
    for _ in range(3):
        Worker.objects.filter(pk=worker.pk).update(lease_until=timezone.now() + timedelta(minutes=1))
        assert ledger.claim(job.id, worker.id)
        expire(worker)
        ledger.release_lost(max_crashes=3)
    row = Job.objects.get(pk=job.id)
    assert (row.state, row.crash_count) == ("DEAD_LETTER", 3)
    assert ledger.release_lost(max_crashes=3) == []


def test_due__retry_whose_time_has_come__is_published_once(worker):
    job = enqueue("email_queue", PAYLOAD)
    ledger.retry(ledger.claim(job.id, worker.id), ERROR, 60)
    assert ledger.due() == []
    Job.objects.update(run_after=timezone.now() - timedelta(seconds=1))
    assert [found.id for found in ledger.due()] == [job.id]
    assert ledger.due() == []


def test_replay__dead_job__waits_again_with_a_new_series_and_an_audit_entry(worker):
    from foundation.models import AuditEntry

    job = enqueue("email_queue", PAYLOAD)
    ledger.bury(ledger.claim(job.id, worker.id), ERROR)
    job = Job.objects.get(pk=job.id)
    deadletter.replay(job, actor="ada", source="cli")
    row = Job.objects.get(pk=job.id)
    assert (row.state, row.attempt) == ("PENDING", 0)
    assert AuditEntry.objects.filter(action="job.replay", target_id=str(job.id)).count() == 1
    with pytest.raises(deadletter.NotDead):
        deadletter.replay(row, actor="ada", source="cli")


def test_perform__handler_fails__is_retried_and_then_dead(worker, monkeypatch):
    def refuse(payload):
        raise OSError("no")

    job = enqueue("email_queue", PAYLOAD, max_retries=1)
    monkeypatch.setattr(registry.resolve("email_queue"), "function", refuse, raising=True)
    engine.perform(ledger.claim(job.id, worker.id))
    assert Job.objects.get(pk=job.id).state == State.FAILED
    Job.objects.update(run_after=timezone.now() - timedelta(seconds=1))
    engine.perform(ledger.claim(job.id, worker.id))
    row = Job.objects.get(pk=job.id)
    assert (row.state, row.attempt, row.last_error["type"]) == ("DEAD_LETTER", 2, "OSError")
