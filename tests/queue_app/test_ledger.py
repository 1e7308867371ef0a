"""The ledger's steps on every database: one suite, run on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, connections, transaction
from django.utils import timezone

from foundation.models import AuditEntry
from queue_app import (
    deadletter,
    enqueue,
    enqueue_many,
    interventions,
    ledger,
    publication,
    recovery,
    retention,
    states,
    stats,
    wakeup,
    workers,
)
from queue_app.models import Job, JobEvent, Worker
from queue_app.publication import Wakeup
from queue_app.runs import FencedOut, Run
from queue_app.statements import Claimed, End
from queue_app.states import Priority, State, Turn

ERROR = json.dumps({"type": "OSError", "message": "no", "traceback": ""})
PAYLOAD = {"to": "a@example.com", "subject": "hello", "task_id": 1}

pytestmark = pytest.mark.usefixtures("every_database")


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Wakeup]:
    """The wake-ups that would go to the broker: these tests are about the rows."""
    messages: list[Wakeup] = []
    monkeypatch.setattr(wakeup, "publish", lambda wakeups: messages.extend(wakeups) or True)
    return messages


@pytest.fixture
def worker() -> Worker:
    return new_worker()


def new_worker() -> Worker:
    return workers.register(pool="threads", concurrency=1, queues=["email_queue"])


def expire(worker: Worker) -> None:
    Worker.objects.filter(pk=worker.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def claim(worker: Worker, *jobs: Job) -> list[Claimed]:
    return ledger.exchange(worker.id, [job.id for job in jobs], [])[0]


def finish(worker: Worker, *ends: End) -> set[UUID]:
    return ledger.exchange(worker.id, [], ends)[1]


def make_due(**changes: Any) -> None:
    Job.objects.update(run_after=timezone.now() - timedelta(seconds=1), **changes)


def history(job: Job) -> list[str]:
    return list(JobEvent.objects.filter(job=job).values_list("state", flat=True))


def test_enqueue_many__three_payloads__rows_and_first_events(sent: list[Wakeup]) -> None:
    jobs = enqueue_many("email_queue", [{"n": 1}, {"n": 2}, {"n": "ü'\"\\"}], request_id="r-1", tenant="acme")
    rows = list(Job.objects.order_by("id"))
    assert [row.payload for row in rows] == [{"n": 1}, {"n": 2}, {"n": "ü'\"\\"}]
    assert {(row.state, row.tenant, row.request_id, row.attempt) for row in rows} == {
        ("PENDING", "acme", "r-1", 0)
    }
    assert [message.id for message in sent] == [job.id for job in jobs]
    assert history(jobs[0]) == ["PENDING"]
    assert abs((rows[0].created_at - timezone.now()).total_seconds()) < 60


def test_exchange__claim_then_complete__second_claim_gets_nothing(worker: Worker) -> None:
    job = enqueue("email_queue", PAYLOAD, priority=Priority.HIGH)
    (claimed,) = claim(worker, job)
    assert (claimed.fence, claimed.payload, claimed.priority, claimed.attempt) == (1, PAYLOAD, 6, 0)
    assert claim(new_worker(), job) == []
    assert finish(worker, End(job.id, 1, State.COMPLETED, 1, '{"status": "sent"}')) == {job.id}
    row = Job.objects.get(pk=job.id)
    assert (row.state, row.attempt, row.result) == ("COMPLETED", 1, {"status": "sent"})
    assert row.started_at <= row.finished_at
    assert claim(worker, job) == []
    assert history(job) == ["PENDING", "PROCESSING", "COMPLETED"]


def test_exchange__server_binds_parameters__takes_one_statement_at_a_time(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connection.vendor != "postgresql":
        return  # a setting of that driver
    options = {**connection.settings_dict["OPTIONS"], "server_side_binding": True}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    connection.close()
    try:
        first, second = enqueue("email_queue", PAYLOAD), enqueue("email_queue", PAYLOAD)
        (held,) = claim(worker, first)
        end = End(held.id, held.fence, State.COMPLETED, 1)
        claimed, accepted = ledger.exchange(worker.id, [second.id], [end])
        assert ([job.id for job in claimed], accepted) == ([second.id], {first.id})
    finally:
        connection.close()
    assert history(first) == ["PENDING", "PROCESSING", "COMPLETED"]


def test_exchange__batch_of_ends_and_claims__one_transaction(worker: Worker) -> None:
    jobs = enqueue_many("email_queue", [{"n": n} for n in range(6)], max_retries=1)
    first = claim(worker, *jobs[:4])
    assert len(first) == 4
    ends = [
        End(jobs[0].id, 1, State.COMPLETED, 1, '"text"'),
        End(jobs[1].id, 1, State.FAILED, 1, error=ERROR, delay_s=30.5, detail='{"retry_in_s": 30.5}'),
        End(jobs[2].id, 1, State.DEAD_LETTER, 1, error=ERROR),
        End(jobs[3].id, 7, State.COMPLETED, 1),  # a fence that it does not have
    ]
    claimed, accepted = ledger.exchange(worker.id, [jobs[4].id, jobs[5].id], ends)
    assert {job.id for job in claimed} == {jobs[4].id, jobs[5].id}
    assert accepted == {job.id for job in jobs[:3]}
    done, failed, dead, running = [Job.objects.get(pk=job.id) for job in jobs[:4]]
    assert (done.state, done.result, done.last_error) == ("COMPLETED", "text", None)
    assert (failed.state, failed.last_error["type"], failed.published_at) == ("FAILED", "OSError", None)
    assert 20 < (failed.run_after - timezone.now()).total_seconds() < 31
    assert (dead.state, dead.attempt, dead.finished_at is None) == ("DEAD_LETTER", 1, False)
    assert running.state == "PROCESSING"
    assert JobEvent.objects.get(job=failed, state="FAILED").detail == {"retry_in_s": 30.5}
    assert JobEvent.objects.get(job=failed, state="FAILED").worker == worker.id


def test_claim__answer_was_lost_with_the_connection__the_same_worker_may_ask_again(worker: Worker) -> None:
    job = enqueue("email_queue", PAYLOAD)
    claim(worker, job)
    (again,) = claim(worker, job)
    assert again.fence == 2
    assert finish(worker, End(job.id, 1, State.COMPLETED, 1)) == set()


@pytest.mark.parametrize("state", list(State))
def test_claim__row_in_each_state__goes_by_the_table(worker: Worker, state: State) -> None:
    for owner in (worker, new_worker()):
        job = enqueue("email_queue", PAYLOAD)
        Job.objects.filter(id=job.id).update(state=state, owner=owner.id)
        assert bool(claim(worker, job)) is states.may_be_claimed(state, is_owner=owner is worker)
        for turn in Turn:
            job = enqueue("email_queue", PAYLOAD)
            Job.objects.filter(id=job.id).update(state=state, owner=owner.id, turn=int(turn))
            expected = states.may_be_claimed(state, is_owner=owner is worker, turn=turn)
            assert bool(claim(worker, job)) is expected, turn


def test_claim__not_due_or_lease_ended__gets_nothing(worker: Worker) -> None:
    later = enqueue("email_queue", PAYLOAD, delay=60)
    assert claim(worker, later) == []
    make_due()
    assert [job.id for job in claim(worker, later)] == [later.id]
    job = enqueue("email_queue", PAYLOAD)
    expire(worker)
    assert claim(worker, job) == []


def test_claim__expired__says_so(worker: Worker) -> None:
    job = enqueue("email_queue", PAYLOAD, expires=60)
    assert not claim(worker, job)[0].expired
    Job.objects.update(state="PENDING", expires_at=timezone.now() - timedelta(seconds=1))
    assert claim(worker, job)[0].expired


def test_release__worker_died__what_ran_is_charged_and_the_rest_is_free(worker: Worker) -> None:
    ran, marked, waited = enqueue_many("email_queue", [PAYLOAD] * 3)
    late = claim(worker, ran, marked, waited)
    assert ledger.mark_started(marked.id, 1)
    assert workers.beat(worker.id, ["email_queue"], [ran.id])
    assert recovery.lost_workers() == []
    expire(worker)
    (lost,) = recovery.lost_workers()
    assert lost.running == [str(ran.id)]
    recovery.release(lost.id, {ran.id}, max_crashes=3, reason="worker lost")
    rows = {row.id: row for row in Job.objects.all()}
    assert {row.state for row in rows.values()} == {"PENDING"}
    assert all(row.suspect and not row.is_marked and row.published_at is None for row in rows.values())
    assert [rows[job.id].crash_count for job in (ran, marked, waited)] == [1, 1, 0]
    assert finish(worker, *(End(job.id, job.fence, State.COMPLETED, 1) for job in late)) == set()
    assert recovery.lost_workers() == []
    assert not workers.beat(worker.id, [], [])  # its lease is over for good


def test_release__third_charged_crash__dead_letter(worker: Worker) -> None:
    job = enqueue("email_queue", PAYLOAD)
    for _ in range(3):
        dying = new_worker()
        assert claim(dying, job)
        expire(dying)
        recovery.release(dying.id, {job.id}, max_crashes=3, reason="worker lost")
    row = Job.objects.get(pk=job.id)
    assert (row.state, row.crash_count, row.last_error["type"]) == ("DEAD_LETTER", 3, "WorkerLost")
    assert history(job)[-1] == "DEAD_LETTER"


def test_release__lease_was_extended_meanwhile__takes_nothing(worker: Worker) -> None:
    job = enqueue("email_queue", PAYLOAD)
    claim(worker, job)
    assert recovery.release(worker.id, (), max_crashes=3, reason="worker lost") == []
    Worker.objects.all().delete()
    assert recovery.ownerless() == [worker.id]
    assert len(recovery.release(worker.id, (), max_crashes=3, reason="worker unknown")) == 1


def test_due__retry_whose_time_has_come__is_published_once(worker: Worker) -> None:
    job = enqueue("email_queue", PAYLOAD)
    claim(worker, job)
    finish(worker, End(job.id, 1, State.FAILED, 1, error=ERROR, delay_s=60))
    assert publication.due() == []
    make_due()
    assert [found.id for found in publication.due()] == [job.id]
    assert publication.due() == []


def test_stale__published_long_ago__is_found_by_the_servers_clock() -> None:
    job = enqueue("email_queue", PAYLOAD)
    assert publication.stale_queues(10) == []
    Job.objects.update(published_at=timezone.now() - timedelta(seconds=20))
    assert publication.stale_queues(10) == ["email_queue"]
    assert [found.id for found in publication.stale("email_queue", 10)] == [job.id]
    assert publication.stale_queues(10) == []
    (depth,) = [depth for depth in stats.depths() if depth.queue == "email_queue"]
    assert depth.jobs["PENDING"] == 1
    assert 0 <= depth.oldest_due_s < 60


def test_stale_and_overtaken__caller_with_a_clock_ahead__is_found_and_is_no_watermark(worker: Worker) -> None:
    ahead, normal = enqueue_many("email_queue", [PAYLOAD] * 2)
    Job.objects.filter(id=ahead.id).update(published_at=timezone.now() + timedelta(hours=1))
    assert publication.stale_queues(10) == ["email_queue"]
    claim(worker, ahead)
    assert publication.overtaken("email_queue", 10) == []
    assert Job.objects.get(pk=normal.id).state == "PENDING"


def test_overtaken__later_jobs_of_the_class_run__the_lost_message_is_found(worker: Worker) -> None:
    lost, other = enqueue("email_queue", PAYLOAD), enqueue("email_queue", PAYLOAD, priority=Priority.LOW)
    Job.objects.update(published_at=timezone.now() - timedelta(seconds=60))
    later = enqueue("email_queue", PAYLOAD)
    claim(worker, later)
    # SQLite's clock has milliseconds: what was published in the present one seems to lie ahead.
    Job.objects.filter(pk=later.pk).update(published_at=timezone.now() - timedelta(seconds=1))
    assert [found.id for found in publication.overtaken("email_queue", 10)] == [lost.id]
    assert publication.overtaken("email_queue", 10) == []
    assert Job.objects.get(pk=other.id).state == "PENDING"


def test_age__waits_for_long__moves_to_the_next_class() -> None:
    job = enqueue("email_queue", PAYLOAD, priority=Priority.LOW)
    assert publication.age(60) == []
    Job.objects.update(published_at=timezone.now() - timedelta(seconds=61))
    assert publication.age(60) == [Wakeup(job.id, "email_queue", Priority.NORMAL)]
    assert Job.objects.get().priority == Priority.NORMAL


def test_cancel__waiting_is_over_and_running_is_asked(worker: Worker) -> None:
    waiting, running = enqueue_many("email_queue", [PAYLOAD] * 2)
    claim(worker, running)
    waiting, running = Job.objects.get(pk=waiting.id), Job.objects.get(pk=running.id)
    assert interventions.cancel(waiting, actor="ada")
    assert interventions.cancel(running, actor="ada")
    assert Job.objects.get(pk=waiting.id).state == "CANCELLED"
    assert workers.cancelled([running.id]) == {running.id: False}
    assert claim(worker, waiting) == []


def test_replay__dead_job__waits_again_with_a_new_series_and_an_audit_entry(worker: Worker) -> None:
    job = enqueue("email_queue", PAYLOAD)
    claim(worker, job)
    finish(worker, End(job.id, 1, State.DEAD_LETTER, 1, error=ERROR))
    deadletter.replay(Job.objects.get(pk=job.id), actor="ada", source="cli")
    row = Job.objects.get(pk=job.id)
    assert (row.state, row.attempt) == ("PENDING", 0)
    assert AuditEntry.objects.filter(action="job.replay", target_id=str(job.id)).count() == 1
    with pytest.raises(deadletter.NotDead):
        deadletter.replay(row, actor="ada", source="cli")


def test_atomic__business_write_and_end__commit_together_or_not_at_all(worker: Worker) -> None:
    job, late = enqueue_many("email_queue", [PAYLOAD] * 2)
    run, frozen = (Run(claimed, worker.id) for claimed in claim(worker, job, late))
    with run.atomic(result={"ok": True}):
        AuditEntry.objects.create(actor="run", action="first", source="system")
    row = Job.objects.get(pk=run.id)
    assert (row.state, row.result, run.is_completed) == ("COMPLETED", {"ok": True}, True)
    expire(worker)
    recovery.release(worker.id, (), max_crashes=3, reason="worker lost")
    with pytest.raises(FencedOut), frozen.atomic():
        AuditEntry.objects.create(actor="run", action="second", source="system")
    assert list(AuditEntry.objects.filter(actor="run").values_list("action", flat=True)) == ["first"]


def test_prune__past_its_retention__is_deleted_with_its_history(worker: Worker) -> None:
    old, young = enqueue_many("email_queue", [PAYLOAD] * 2)
    claim(worker, old, young)
    finish(worker, *(End(job.id, 1, State.COMPLETED, 1) for job in (old, young)))
    Job.objects.filter(pk=old.pk).update(finished_at=timezone.now() - timedelta(days=2))
    assert retention.prune_jobs("email_queue", State.COMPLETED, 86_400) == 1
    assert [job.pk for job in Job.objects.all()] == [young.pk]
    assert not JobEvent.objects.filter(job_id=old.pk).exists()


def in_threads(count: int, act: Callable[[], Any]) -> list[Any]:
    start, got = threading.Barrier(count), []

    def reach() -> None:
        try:
            start.wait(60)
            got.append(act())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=reach) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return got


def test_claim__eight_workers_at_once__each_job_goes_to_one(worker: Worker) -> None:
    jobs = enqueue_many("email_queue", [PAYLOAD] * 20)
    mine = iter([worker, *(new_worker() for _ in range(7))])
    got = in_threads(8, lambda: claim(next(mine), *jobs))
    assert len(got) == 8
    claimed = [job.id for batch in got for job in batch]
    assert sorted(claimed) == sorted(job.id for job in jobs)


def test_due__two_reconcilers_at_once__share_the_work() -> None:
    jobs = enqueue_many("email_queue", [PAYLOAD] * 4)
    Job.objects.update(published_at=None)
    if not connections["default"].features.has_select_for_update_skip_locked:
        assert len([id for batch in in_threads(2, publication.due) for id in batch]) == 4
        return
    with transaction.atomic():
        first = Job.objects.select_for_update().order_by("id")[:1].get()
        (seen,) = in_threads(1, publication.due)
    assert {message.id for message in seen} == {job.id for job in jobs} - {first.id}
