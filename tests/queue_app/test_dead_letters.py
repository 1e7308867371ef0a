"""The desk on every database: fingerprints on rows, groups, replays of many at a rate, mended payloads."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext

from foundation.models import AuditEntry
from queue_app import (
    bulk,
    clock,
    deadletter,
    enqueue,
    enqueue_many,
    ledger,
    queues,
    reconciler,
    recovery,
    registry,
    retention,
    stats,
    task,
    wakeup,
    workers,
)
from queue_app.fingerprints import fingerprint
from queue_app.models import BulkAction, Job, JobEvent
from queue_app.payloads import BadPayload
from queue_app.publication import Wakeup
from queue_app.selection import Selection
from queue_app.statements import End
from queue_app.states import State

pytestmark = pytest.mark.usefixtures("every_database")
WHO: dict[str, Any] = {"actor": "ada", "source": "cli"}
REFUSED = {"type": "OSError", "message": "no route to 10.0.0.1", "traceback": ""}
GONE = {"type": "KeyError", "message": "'x'", "traceback": ""}


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Wakeup]]:
    messages: list[Wakeup] = []
    monkeypatch.setattr(wakeup, "publish", lambda wakeups: messages.extend(wakeups) or True)
    yield messages
    BulkAction.objects.all().delete()


@pytest.fixture
def secret_task() -> Iterator[str]:
    made = task(name="charge", queue="charges", secret_fields=["card.number"])(lambda payload: None)
    yield made.name
    del registry._tasks[made.name]


def die(jobs: list[Job], error: dict[str, str] = REFUSED) -> list[Job]:
    """They are claimed, run and fail for good, by the ledger's own statements."""
    worker = workers.register(pool="threads", concurrency=1, queues=["email_queue"])
    claimed = ledger.exchange(worker.id, [job.id for job in jobs], [])[0]
    ends = [End(job.id, job.fence, State.DEAD_LETTER, 1, None, json.dumps(error)) for job in claimed]
    assert len(ledger.exchange(worker.id, [], ends)[1]) == len(jobs)
    return [Job.objects.get(id=job.id) for job in jobs]


def claimed(jobs: list[Job]) -> list[UUID]:
    """Those of them that a worker would run now."""
    worker = workers.register(pool="threads", concurrency=1, queues=["email_queue"])
    found = ledger.exchange(worker.id, [job.id for job in jobs], [])[0]
    return [job.id for job in found if not job.expired]


def dead(count: int = 1, error: dict[str, str] = REFUSED) -> list[Job]:
    return die(enqueue_many("email_queue", [{"n": number} for number in range(count)]), error)


def pass_by(seconds: float) -> None:
    """As if the last look had been so long ago."""
    for row in BulkAction.objects.filter(finished_at=None):
        BulkAction.objects.filter(id=row.id).update(counted_to=row.counted_to - timedelta(seconds=seconds))


def audited() -> Any:
    return AuditEntry.objects.exclude(action="queue.create")  # on first use


# --- fingerprints ------------------------------------------------------------------------------------------------------
def test_exchange__dead_end__fingerprint_is_on_the_row_and_costs_the_others_nothing() -> None:
    (job,) = dead()
    assert job.fingerprint == fingerprint(REFUSED)
    worker = workers.register(pool="threads", concurrency=1, queues=["email_queue"])
    done = enqueue("email_queue", {})
    (claimed,) = ledger.exchange(worker.id, [done.id], [])[0]
    with CaptureQueriesContext(
        connection,
    ) as queries:
        ledger.exchange(worker.id, [], [End(done.id, claimed.fence, State.COMPLETED, 1)])
    assert not [query for query in queries if "fingerprint" in query["sql"]]
    assert Job.objects.get(id=done.id).fingerprint == ""


def test_take_back__crashed_too_often__fingerprint_of_the_loss() -> None:
    worker = workers.register(pool="threads", concurrency=1, queues=["email_queue"])
    job = enqueue("email_queue", {})
    ledger.exchange(worker.id, [job.id], [])
    recovery.take_back(worker.id, [job.id], ran=[job.id], max_crashes=1, reason="child died")
    row = Job.objects.get(id=job.id)
    assert (row.state, row.fingerprint) == ("DEAD_LETTER", fingerprint(row.last_error))


def test_migration__rows_that_were_dead_before__get_the_fingerprints_of_now() -> None:
    jobs = dead(3) + dead(1, GONE) + dead(1, {**REFUSED, "traceback": 'File "/a/b/c.py", line 3, in go\n x'})
    expected = {job.id: job.fingerprint for job in jobs}
    Job.objects.update(fingerprint="")
    filling = importlib.import_module("queue_app.migrations.0009_fill_fingerprint")
    with connection.schema_editor() as editor:
        filling.fill(apps, editor)
    assert dict(Job.objects.values_list("id", "fingerprint")) == expected


# --- groups ------------------------------------------------------------------------------------------------------------
def test_groups__two_failures__counted_with_the_newest_ones_error() -> None:
    dead(2)
    newest = dead(1, {**REFUSED, "message": "no route to 10.9.9.9"})[0]
    dead(1, GONE)
    with CaptureQueriesContext(connection) as queries:
        first, second = deadletter.groups(Selection())
    assert len(queries) == 2
    assert (first.jobs, first.type, first.message, first.newest) == (
        3, "OSError", "no route to 10.9.9.9", newest.id,
    )  # fmt: skip
    assert (second.jobs, second.fingerprint) == (1, fingerprint(GONE))
    assert deadletter.groups(Selection(queue="other")) == []
    assert [group.jobs for group in deadletter.groups(Selection(fingerprint=fingerprint(GONE)))] == [1]


# --- replays -----------------------------------------------------------------------------------------------------------
def test_replay__at_a_rate__lets_go_as_many_as_time_allows_oldest_first(
    sent: list[Wakeup], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = dead(25)
    dead(1, GONE)
    sent.clear()
    moment = clock.now()
    monkeypatch.setattr(clock, "now", lambda: moment)  # looks take their time on a busy machine
    row = bulk.start("replay", Selection(fingerprint=fingerprint(REFUSED)), rate=10, **WHO)
    assert bulk.work_off(look_s=1) == 0
    moment += timedelta(seconds=1)
    assert bulk.work_off(look_s=1) == 10
    assert [message.id for message in sent] == [job.id for job in jobs[:10]]
    assert bulk.work_off(look_s=1) == 0
    for _ in range(3):
        moment += timedelta(seconds=1)
        bulk.work_off(look_s=1)
    row.refresh_from_db()
    assert (row.wanted, row.done, row.finished_at is not None) == (25, 25, True)
    again = Job.objects.get(id=jobs[0].id)
    assert (again.state, again.attempt, again.finished_at) == ("PENDING", 0, None)
    last = JobEvent.objects.filter(job=again).last()
    assert (last.detail["action"], last.detail["actor"]) == ("replayed", "ada")
    assert Job.objects.filter(state="DEAD_LETTER").count() == 1
    actions = audited().order_by("id").values_list("action", "actor")
    assert list(actions) == [("bulk.replay", "ada"), ("bulk.finish", "ada")]


def test_replay__job_fails_again__same_lineage_and_not_replayed_twice() -> None:
    (job,) = dead()
    bulk.start("replay", Selection(), **WHO)
    assert bulk.work_off(look_s=1) == 1
    die([job])
    BulkAction.objects.update(position=None)  # as if it had not been looked at yet
    assert bulk.work_off(look_s=1) == 0
    assert BulkAction.objects.get().finished_at is not None
    states = list(JobEvent.objects.filter(job=job).values_list("state", flat=True))
    assert states == ["PENDING", "PROCESSING", "DEAD_LETTER", "PENDING", "PROCESSING", "DEAD_LETTER"]


def test_replay__dead_for_a_week__its_queue_is_no_week_behind() -> None:
    by_hand, in_bulk = dead(2)
    Job.objects.update(created_at=clock.now() - timedelta(days=7))
    deadletter.replay(by_hand, **WHO)
    assert stats.oldest_due_s()["email_queue"] < 60
    bulk.start("replay", Selection(), **WHO)
    bulk.work_off(look_s=1)
    assert stats.oldest_due_s()["email_queue"] < 60
    assert {*claimed([by_hand, in_bulk])} == {by_hand.id, in_bulk.id}


def test_replay__its_expiry_is_past__runs_all_the_same() -> None:
    by_hand, in_bulk, ahead = die(enqueue_many("email_queue", [{}, {}, {}], expires=600))
    Job.objects.exclude(id=ahead.id).update(expires_at=clock.now() - timedelta(days=7))
    deadletter.replay(Job.objects.get(id=by_hand.id), **WHO)
    bulk.start("replay", Selection(), **WHO)
    bulk.work_off(look_s=1)
    assert Job.objects.get(id=ahead.id).expires_at == ahead.expires_at
    assert {*claimed([by_hand, in_bulk, ahead])} == {by_hand.id, in_bulk.id, ahead.id}


def test_replay__arguments_not_recorded__passed_over() -> None:
    job, other = dead(2)
    Job.objects.filter(id=job.id).update(payload={"not_kept": "too large"})
    bulk.start("replay", Selection(), **WHO)
    bulk.work_off(look_s=1)
    bulk.work_off(look_s=1)
    row = BulkAction.objects.get()
    assert (row.done, row.passed_over) == (1, 1)
    assert Job.objects.get(id=job.id).state == "DEAD_LETTER"


def test_replay__stopped__lets_go_no_more_and_cannot_be_stopped_again() -> None:
    dead(5)
    row = bulk.start("replay", Selection(), rate=1, **WHO)
    bulk.stop(row.id, **WHO)
    pass_by(10)
    assert bulk.work_off(look_s=1) == 0
    with pytest.raises(bulk.Ended):
        bulk.stop(row.id, **WHO)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), True, "7", 1e9])
def test_start__bad_rate_or_nothing_dead__nothing_changed(rate: Any) -> None:
    with pytest.raises(bulk.NothingToDo, match="'nowhere'"):
        bulk.start("replay", Selection(queue="nowhere"), **WHO)
    dead(1)
    with pytest.raises(ValueError, match="rate"):
        bulk.start("replay", Selection(), rate=rate, **WHO)
    assert not BulkAction.objects.exists()
    assert not audited().exists()


# --- payloads ----------------------------------------------------------------------------------------------------------
def test_edit__new_value__checked_kept_in_history_and_audit(secret_task: str) -> None:
    (job,) = die([enqueue(secret_task, {"to": "a", "card": {"number": "4111", "name": "x"}})])
    shown = {"to": "b", "card": {"number": "••••••", "name": "x"}}
    changes = deadletter.edit(job, shown, **WHO)
    assert changes == {"to": {"before": "a", "after": "b"}}
    opened = registry.find(secret_task).reveal(Job.objects.get(id=job.id).payload)
    assert opened == {"to": "b", "card": {"number": "4111", "name": "x"}}
    deadletter.edit(job, {"to": "b", "card": {"number": "4222"}}, **WHO)
    told = json.dumps(
        [
            *JobEvent.objects.values_list("detail", flat=True),
            *AuditEntry.objects.values_list("after", flat=True),
        ]
    )
    assert "4111" not in told
    assert "4222" not in told
    assert "card.number" in told
    assert "4222" not in json.dumps(Job.objects.get(id=job.id).payload)


def test_edit__sealed_under_a_key_that_is_gone__refused_and_says_what_to_do(
    secret_task: str, settings
) -> None:
    (job,) = die([enqueue(secret_task, {"card": {"number": "4242"}})])
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another" * 8, []
    with pytest.raises(deadletter.Refused, match="SECRET_KEY_FALLBACKS"):
        deadletter.edit(job, {"card": {"number": "1"}}, **WHO)


def test_edit__large_payload_or_no_change__kept_beside_the_row_or_no_event() -> None:
    (job,) = dead()
    deadletter.edit(job, {"text": "x" * 100_000}, **WHO)
    assert Job.objects.get(id=job.id).payload is None
    count = JobEvent.objects.filter(job=job).count()
    assert deadletter.edit(job, {"text": "x" * 100_000}, **WHO) == {}
    assert JobEvent.objects.filter(job=job).count() == count
    deadletter.edit(job, {"n": 1}, **WHO)
    assert Job.objects.get(id=job.id).payload == {"n": 1}


def test_edit__not_dead_or_no_json__refused_and_nothing_changed() -> None:
    (job,) = dead()
    for wrong in ([1], {"n": float("nan")}, {"n": "••••••"}):
        with pytest.raises(BadPayload):
            deadletter.edit(job, wrong, **WHO)
    waiting = enqueue("email_queue", {"n": 1})
    with pytest.raises(deadletter.NotDead):
        deadletter.edit(waiting, {"n": 2}, **WHO)
    assert [row.payload for row in Job.objects.order_by("id")] == [{"n": 0}, {"n": 1}]
    assert not audited().exists()


def test_acts__job_was_pruned_meanwhile__refused_and_says_so() -> None:
    (job,) = dead()
    JobEvent.objects.filter(job=job).delete()
    Job.objects.filter(id=job.id).delete()
    for act in (deadletter.replay, deadletter.discard, lambda gone, **who: deadletter.edit(gone, {}, **who)):
        with pytest.raises(deadletter.Refused, match="is gone"):
            act(job, **WHO)


def test_prune__replayed_while_it_looks__is_kept_and_runs() -> None:
    replayed, gone = dead(2)
    Job.objects.update(finished_at=clock.now() - timedelta(seconds=90))
    began: list[str] = []

    def between(execute: Any, sql: str, *arguments: Any) -> Any:
        answer = execute(sql, *arguments)
        if not began:
            began.append(sql)
            deadletter.replay(replayed, **WHO)
        return answer

    with connection.execute_wrapper(between):
        assert retention.prune_jobs("email_queue", State.DEAD_LETTER, 60) == 1
    assert began[0].startswith("SELECT")
    assert [*Job.objects.values_list("id", "state")] == [(replayed.id, "PENDING")]
    assert JobEvent.objects.filter(job=replayed).count() == 4


def test_prune__queue_keeps_its_dead_for_a_time_of_its_own() -> None:
    (job,) = dead()
    queues.configure("email_queue", dead_retention_s=60.0, **WHO)
    reconciler.prune()
    assert Job.objects.filter(id=job.id).exists()
    Job.objects.filter(id=job.id).update(finished_at=clock.now() - timedelta(seconds=90))
    reconciler.prune()
    assert not Job.objects.filter(id=job.id).exists()
