"""Finding jobs and acting on all of them, on every database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from foundation.models import AuditEntry
from queue_app import (
    bulk,
    call,
    chain,
    clock,
    conditions,
    enqueue,
    enqueue_many,
    enqueue_workflow,
    finding,
    ledger,
    policies,
    promoting,
    queues,
    reconciler,
    selection,
    wakeup,
    workers,
)
from queue_app.models import BulkAction, Job, JobEvent, Tag, Worker
from queue_app.publication import Wakeup
from queue_app.selection import Selection
from queue_app.states import State

pytestmark = pytest.mark.usefixtures("every_database")
WHO: dict[str, Any] = {"actor": "ada", "source": "cli"}
QUEUE = "email_queue"


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Wakeup]]:
    messages: list[Wakeup] = []
    monkeypatch.setattr(wakeup, "publish", lambda wakeups: messages.extend(wakeups) or True)
    yield messages
    BulkAction.objects.all().delete()


def found(**asked: str) -> list[UUID]:
    wanted = selection.read(asked, timezone.now())
    return list(finding.jobs(wanted).order_by("id").values_list("id", flat=True))


def claim(jobs: list[Job]) -> Worker:
    worker = workers.register(pool="threads", concurrency=1, queues=[QUEUE])
    assert len(ledger.exchange(worker.id, [job.id for job in jobs], [])[0]) == len(jobs)
    return worker


def die(*jobs: Job) -> None:
    Job.objects.filter(id__in=[job.id for job in jobs]).update(
        state=State.DEAD_LETTER, finished_at=clock.now() - timedelta(seconds=1)
    )


def work_off() -> BulkAction:
    for _ in range(20):
        bulk.work_off(look_s=1)
    return BulkAction.objects.get()


# --- finding ------------------------------------------------------------------------------------------------------------
def test_find__each_field__these_jobs_and_no_others() -> None:
    queues.create_queue("other")
    mine = enqueue(
        QUEUE,
        {"to": "a", "user": {"id": 42}, "n": [1, 2]},
        tenant="acme",
        tags=["red", "hot"],
        request_id="r-1",
    )
    child = enqueue(QUEUE, {"to": "b", "user": {"id": "42"}}, tags=["red"], parent=mine, queue="other")
    worker = claim([mine])
    die(child)
    assert found(queue="other") == found(state="DEAD_LETTER") == found(parent=str(mine.id)) == [child.id]
    assert found(tenant="acme") == found(tag="hot") == found(request_id="r-1") == [mine.id]
    assert found(tag="red") == found(task="tasks_service.send_email") == [mine.id, child.id]
    for name in (str(worker.id), worker.host, f"{worker.host}:{worker.pid}"):
        assert found(worker=name) == [mine.id]
    assert found(worker="nowhere") == found(worker=f"{worker.host}:1") == found(tag="re") == []
    assert found(queue="other", tag="red", state="DEAD_LETTER", arguments="to=b") == [child.id]


@pytest.mark.parametrize("few", [0, 200], ids=["many", "few"])
def test_find__arguments__json_values_by_their_paths(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(finding, "_FEW", few)
    number = enqueue(QUEUE, {"user": {"id": 42}, "n": [1, 2], "ok": True, "none": None})
    text = enqueue(QUEUE, {"user": {"id": "42"}, "to": "a b"})
    assert found(arguments="user.id=42") == [number.id, text.id]
    assert (
        found(arguments="n.1=2") == found(arguments="ok=true") == found(arguments="none=null") == [number.id]
    )
    assert found(arguments="'to=a b' user.id=42") == [text.id]
    assert found(arguments="to=A") == found(arguments="ok=1") == found(arguments="user.name=x") == []


def test_find__arguments_of_few_jobs__payloads_are_looked_at_once() -> None:
    """Given the condition, PostgreSQL reads all of a large table for it: for the count of a list, and for its page."""
    enqueue_many(QUEUE, [{"customer": n} for n in range(3)])
    with CaptureQueriesContext(connection) as capture:
        meant = finding.jobs(selection.read({"arguments": "customer=1"}, timezone.now()))
        assert (meant.count(), len(meant)) == (1, 1)
    assert [("customer" in query["sql"]) for query in capture.captured_queries] == [True, False, False]


@pytest.mark.parametrize("few", [0, 200], ids=["many", "few"])
def test_find__arguments__among_the_newest_alone(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(finding, "_FEW", few)
    monkeypatch.setattr(finding, "SEARCHED", 3)
    jobs = enqueue_many(QUEUE, [{"n": 1}] * 5)
    assert found(arguments="n=1") == [job.id for job in jobs[-3:]]


def test_find__time__when_it_was_enqueued() -> None:
    (old,) = enqueue_many(QUEUE, [{}])
    hour = timezone.now() - timedelta(hours=1)
    aged = UUID(int=(int(hour.timestamp() * 1000) << 80) | old.id.int & ((1 << 80) - 1))
    with transaction.atomic():
        JobEvent.objects.all().delete()
        Job.objects.filter(id=old.id).update(id=aged, created_at=hour)
    new = enqueue(QUEUE, {})
    assert found(since="30m") == [new.id]
    assert found(until="30m") == [aged]
    assert found(since="2h") == [aged, new.id]
    assert found(since="2h", until="90m") == []


def test_find__when_they_died__whenever_they_were_enqueued() -> None:
    now = clock.now()
    early, late, alive = enqueue_many(QUEUE, [{}] * 3)
    for job, ago in ((early, 300), (late, 10)):
        died = {"state": "DEAD_LETTER", "finished_at": now - timedelta(seconds=ago)}
        Job.objects.filter(id=job.id).update(created_at=now - timedelta(days=9), **died)
    assert alive.id not in found(died_since="1d")
    assert found(died_since="1m") == [late.id]
    assert found(died_until="1m") == [early.id]
    assert found(died_since="1h", died_until="5s") == [early.id, late.id]
    assert bulk.count("cancel", selection.read({"died_since": "1h"}, timezone.now())) == 0
    with pytest.raises(selection.BadSelection, match="died_since is not before died_until"):
        found(died_since="1m", died_until="1h")


def test_enqueue__tags__stored_with_the_job_found_and_gone_with_it() -> None:
    job = enqueue(QUEUE, {}, tags=["red", "red", "hot"])
    again = enqueue(QUEUE, {}, tags=["red"], unique="k")
    twin = enqueue(QUEUE, {}, tags=["blue"], unique="k")
    assert (job.tags, Job.objects.get(id=job.id).tags) == (("red", "hot"), ("hot", "red"))
    assert twin.is_duplicate
    assert list(Tag.objects.order_by("id").values_list("job", "name")) == [
        (job.id, "red"), (job.id, "hot"), (again.id, "red"),
    ]  # fmt: skip
    flow = enqueue_workflow(chain(call(QUEUE, {}, tags=["step"]), call(QUEUE, {})))
    assert found(tag="step") == [flow.members.get(position=0).job]
    Job.objects.filter(id=job.id).update(state="COMPLETED", finished_at=clock.now() - timedelta(days=30))
    reconciler.prune()
    assert not Tag.objects.filter(job=job.id).exists()


def test_enqueue__tags_on_a_queue_with_broker_delivery__refused() -> None:
    queues.create_queue("letters")
    queues.configure("letters", delivery="broker", **WHO)
    with pytest.raises(ValueError, match="tags cannot be had"):
        enqueue(QUEUE, {}, queue="letters", tags=["red"])


# --- bulk actions -------------------------------------------------------------------------------------------------------
def test_bulk__discard__the_dead_of_the_selection_in_few_statements() -> None:
    jobs = enqueue_many(QUEUE, [{"n": number % 2} for number in range(40)])
    die(*jobs[:30])
    row = bulk.start("discard", Selection(queue=QUEUE), **WHO)
    with CaptureQueriesContext(connection) as queries:
        assert bulk.work_off(look_s=1) == 30
    assert len(queries) < 40  # and not some for each job
    row.refresh_from_db()
    assert (row.wanted, row.seen, row.done, row.passed_over, row.progress) == (30, 30, 30, 0, 1.0)
    assert Job.objects.filter(state="CANCELLED").count() == 30
    assert JobEvent.objects.filter(detail__action="discarded", detail__actor="ada").count() == 30


def test_bulk__arguments__all_are_looked_at_and_these_acted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_SEARCHED", 7)
    jobs = enqueue_many(QUEUE, [{"n": number % 3} for number in range(30)])
    bulk.start("cancel", selection.read({"arguments": "n=1"}, timezone.now()), **WHO)
    row = work_off()
    assert (row.wanted, row.seen, row.done, row.finished_at is not None) == (30, 30, 10, True)
    gone = set(Job.objects.filter(state="CANCELLED").values_list("id", flat=True))
    assert gone == {job.id for job in jobs if job.payload["n"] == 1}


def test_bulk__arguments_at_a_rate__what_does_not_match_uses_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bulk, "_SEARCHED", 5)
    moment = clock.now()
    enqueue_many(QUEUE, [{"n": 0}] * 20 + [{"n": 1}] * 4)
    monkeypatch.setattr(clock, "now", lambda: moment + timedelta(seconds=5))
    bulk.start("cancel", selection.read({"arguments": "n=1"}, timezone.now()), rate=2, **WHO)
    monkeypatch.setattr(clock, "now", lambda: moment + timedelta(seconds=6))
    assert bulk.work_off(look_s=1) == 2
    monkeypatch.setattr(clock, "now", lambda: moment + timedelta(seconds=7))
    assert bulk.work_off(look_s=1) == 2


def test_bulk__cancel__waiting_over_running_asked_and_workflows_told() -> None:
    waiting, running, over = enqueue_many(QUEUE, [{}, {}, {}])
    flow = enqueue_workflow(chain(call(QUEUE, {}), call(QUEUE, {})))
    claim([running])
    Job.objects.filter(id=over.id).update(state="COMPLETED")
    bulk.start("cancel", Selection(), force=True, **WHO)
    row = work_off()
    assert (row.wanted, row.done) == (4, 4)
    states = dict(Job.objects.values_list("id", "state"))
    assert (states[waiting.id], states[running.id], states[over.id]) == (
        "CANCELLED",
        "PROCESSING",
        "COMPLETED",
    )
    asked = Job.objects.get(id=running.id)
    assert (asked.cancel_requested, asked.cancel_forced) == (True, True)
    flow.refresh_from_db()
    assert (flow.cancelled, flow.finished_at is not None) == (2, True)


def test_bulk__run__what_waits_for_its_time_is_published_and_held_ones_wait(
    sent: list[Wakeup],
) -> None:
    later = enqueue(QUEUE, {}, delay=600)
    enqueue_workflow(chain(call(QUEUE, {}), call(QUEUE, {})))
    sent.clear()
    bulk.start("run", Selection(), **WHO)
    row = work_off()
    assert (row.wanted, row.done) == (1, 1)
    assert [message.id for message in sent] == [later.id]
    assert Job.objects.filter(conditions.is_due(), id=later.id).exists()
    with pytest.raises(bulk.NothingToDo):
        bulk.start("run", Selection(), **WHO)


def test_bulk__what_is_enqueued_later__is_left_alone() -> None:
    enqueue_many(QUEUE, [{}] * 3)
    bulk.start("cancel", Selection(), **WHO)
    Job.objects.update(created_at=timezone.now() - timedelta(seconds=5))
    later = enqueue(QUEUE, {})
    Job.objects.filter(id=later.id).update(created_at=clock.now() + timedelta(seconds=5))
    assert work_off().done == 3
    assert Job.objects.get(id=later.id).state == "PENDING"


def test_bulk__queue_with_limits__they_stand_in_line(sent: list[Wakeup]) -> None:
    jobs = enqueue_many(QUEUE, [{}] * 3)
    die(*jobs)
    queues.configure(QUEUE, max_concurrency=1, **WHO)
    policies.by_name(fresh=True)
    sent.clear()
    bulk.start("replay", Selection(), **WHO)
    work_off()
    assert set(Job.objects.values_list("state", "turn")) == {("PENDING", 2)}
    assert not [message for message in sent if message.id in {job.id for job in jobs}]
    queues.configure(QUEUE, max_concurrency=None, **WHO)
    policies.by_name(fresh=True)


@pytest.mark.parametrize("action", ["melt", ""])
def test_start__no_such_action_or_force_without_cancel__nothing_changed(action: str) -> None:
    enqueue(QUEUE, {})
    with pytest.raises(ValueError, match="is not a valid"):
        bulk.start(action, Selection(), **WHO)
    with pytest.raises(ValueError, match="force"):
        bulk.start("run", Selection(), force=True, **WHO)
    assert not BulkAction.objects.exists()


def test_prune__bulk_actions_of_long_ago__gone() -> None:
    enqueue(QUEUE, {})
    bulk.start("cancel", Selection(), **WHO)
    work_off()
    assert bulk.prune(60) == 0
    BulkAction.objects.update(finished_at=clock.now() - timedelta(seconds=90))
    assert bulk.prune(60) == 1


def test_run_now__waits_for_its_retry__due_audited_and_not_twice(sent: list[Wakeup]) -> None:
    job = enqueue(QUEUE, {}, delay=600)
    sent.clear()
    promoting.run_now(job, **WHO)
    assert [message.id for message in sent] == [job.id]
    assert AuditEntry.objects.get(action="job.run_now").actor == "ada"
    with pytest.raises(promoting.NotLater):
        promoting.run_now(job, **WHO)
    flow = enqueue_workflow(chain(call(QUEUE, {}), call(QUEUE, {})))
    held = Job.objects.get(id=flow.members.get(position=1).job)
    with pytest.raises(promoting.NotLater, match="other jobs"):
        promoting.run_now(held, **WHO)


def test_run_now__process_that_has_not_looked_at_the_limits__stands_in_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = enqueue(QUEUE, {}, delay=600)
    queues.configure(QUEUE, max_concurrency=1, **WHO)
    monkeypatch.setattr(policies, "_governed", frozenset())  # as of a site that has enqueued nothing yet
    policies.forget()
    promoting.run_now(job, **WHO)
    assert Job.objects.get(id=job.id).turn == 2
    queues.configure(QUEUE, max_concurrency=None, **WHO)
    policies.by_name(fresh=True)
