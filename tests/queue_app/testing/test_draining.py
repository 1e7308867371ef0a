"""drain and perform on every database, inside a transaction of the test's (as in a TestCase) and outside of one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from celery import shared_task
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from foundation import request_id as request_ids
from queue_app import (
    DeadLetter,
    Discard,
    Retry,
    aenqueue,
    batch,
    call,
    chain,
    enqueue,
    enqueue_many,
    enqueue_workflow,
    group,
    interventions,
    ledger,
    policies,
    queues,
    task,
    workers,
)
from queue_app.models import Job, JobEvent, Queue, Worker
from queue_app.runs import Run
from queue_app.testing import (
    Drained,
    EndlessDrain,
    adrain,
    assert_enqueued,
    drain,
    frozen_time,
    no_broker,
    perform,
)
from tests.queue_app import flows

pytestmark = pytest.mark.usefixtures("every_database", "_around")

SEEN: list[Any] = []


@pytest.fixture(params=["in a transaction", "autocommit"])
def _around(request: pytest.FixtureRequest, every_database: None) -> Iterator[None]:
    SEEN.clear()
    is_inside = request.param == "in a transaction"
    with no_broker():
        with transaction.atomic() if is_inside else nullcontext():
            yield
        flows.forget()
    policies.forget()


@task(queue="kit", name="kit.note", max_retries=1, backoff_base_s=30.0)
def note(payload: dict[str, Any], job: Run) -> dict[str, Any]:
    SEEN.append(payload.get("n"))
    for error in ("raises", "raises_once"):
        if error in payload and (error == "raises" or job.attempt == 1):
            raise {
                "Retry": Retry("later", after=60),
                "Discard": Discard("gone"),
                "Dead": DeadLetter("no"),
            }.get(payload[error], ConnectionError(payload[error]))
    return {"n": payload.get("n"), "id": request_ids.current(), "before": job.previous_results()}


@task(queue="kit", name="kit.breed")
def breed(payload: dict[str, Any]) -> None:
    for n in range(payload["children"]):
        enqueue(note, {"n": n})


@task(queue="kit", name="kit.again")
def again(payload: dict[str, Any]) -> None:
    enqueue(again, payload, delay=payload["delay"])


@task(queue="kit_async", name="kit.count")
async def count(payload: dict[str, Any]) -> int:
    await aenqueue(note, {"n": "child"})
    return await Job.objects.acount()


@task(queue="kit", name="kit.clash", max_retries=0)
def clash(payload: dict[str, Any]) -> str:
    """A statement that fails, and before it one that does not."""
    Queue.objects.create(name="kit_clash")
    try:
        Queue.objects.create(name="kit_clash")
    except IntegrityError:
        if payload["raises"]:
            raise
    return "caught"


@task(queue="kit", name="kit.hook", max_retries=0)
def hook(payload: dict[str, Any]) -> None:
    def act() -> None:
        SEEN.append("hook")
        if payload["raises"]:
            raise OSError("from the hook")

    transaction.on_commit(act)
    SEEN.append("handler")


@task(queue="kit", name="kit.durable", max_retries=0)
def durable(payload: dict[str, Any]) -> None:
    with transaction.atomic(durable=True):
        Queue.objects.create(name="kit_durable")


@task(queue="kit", name="kit.outstay", max_retries=0, soft_time_limit_s=0.05)
def outstay(payload: dict[str, Any]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        time.sleep(0.01)


@task(queue="kit", name="kit.outstay_async", max_retries=0, soft_time_limit_s=0.3)
async def outstay_async(payload: dict[str, Any]) -> None:
    try:
        await asyncio.sleep(60)
    finally:
        SEEN.append(await Job.objects.acount())


@task(queue="kit", name="kit.book")
def book(payload: dict[str, Any], job: Run) -> None:
    with job.atomic({"booked": True}):
        Queue.objects.create(name="kit_booked")


@shared_task(name="kit.stock", bind=True, max_retries=2)
def stock(self: Any, a: int, b: int = 0) -> int:
    SEEN.append(("stock", self.request.retries))
    if self.request.retries == 0:
        raise self.retry(countdown=45)
    return a + b


def history(job: Job) -> list[str]:
    return list(JobEvent.objects.filter(job=job).order_by("id").values_list("state", flat=True))


@task(queue="drained", max_retries=0)
def interrupted(payload: dict[str, Any]) -> None:
    if not SEEN:
        raise KeyboardInterrupt


def test_drain__due_jobs_and_their_children__run_the_most_urgent_first() -> None:
    enqueue(breed, {"children": 2}, priority=9)
    jobs = [enqueue(note, {"n": "low"}, priority=0), enqueue(note, {"n": "high"}, priority=6)]
    later = enqueue(note, {"n": "later"}, delay=60)
    drained = drain()
    assert drained == Drained(completed=5)
    assert (drained.runs, drained.waiting) == (5, 1)
    assert SEEN == ["high", 0, 1, "low"]
    assert history(jobs[0]) == ["PENDING", "PROCESSING", "COMPLETED"]
    job = Job.objects.get(id=jobs[0].id)
    assert (job.result["n"], job.attempt, job.fence) == ("low", 1, 1)
    assert Job.objects.get(id=later.id).state == "PENDING"
    assert drain() == Drained()
    worker = Worker.objects.get(id=job.owner)
    assert (worker.pool, worker.stopped_at is None) == ("drain", False)


def test_drain__request_id__is_bound_as_in_a_worker() -> None:
    job = enqueue(note, {}, request_id="r-17")
    drain()
    job.refresh_from_db()
    assert job.result["id"] == "r-17"


def test_drain__failures__are_retried_only_when_told_to() -> None:
    with frozen_time():  # the wait is a random one
        job, lost = enqueue(note, {"raises_once": "refused"}), enqueue(note, {"raises": "for ever"})
        assert drain() == Drained(failed=2)
        assert drain(with_scheduled=True, with_retries=False) == Drained()
        job.refresh_from_db()
        assert (job.state, job.attempt, job.last_error["type"]) == ("FAILED", 1, "ConnectionError")
        assert job.run_after is not None
        assert drain(with_retries=True) == Drained(completed=1, dead=1)
    job.refresh_from_db()
    lost.refresh_from_db()
    assert (job.state, job.attempt) == ("COMPLETED", 2)
    assert (lost.state, lost.attempt, lost.fingerprint == "") == ("DEAD_LETTER", 2, False)
    assert history(lost) == ["PENDING", "PROCESSING", "FAILED", "PROCESSING", "DEAD_LETTER"]


def test_drain__each_way_to_end__is_counted() -> None:
    for raises in ("Retry", "Discard", "Dead"):
        enqueue(note, {"raises": raises})
    enqueue(note, {"n": 1}, expires=60)
    over = enqueue(note, {"n": 2}, expires=60)
    Job.objects.filter(id=over.id).update(expires_at=timezone.now() - timedelta(seconds=1))
    unknown = enqueue(note, {})
    Job.objects.filter(id=unknown.id).update(name="nobody.knows")
    drained = drain(with_scheduled=True, with_retries=False)
    assert drained == Drained(completed=1, failed=1, dead=1, cancelled=2, given_back=1)
    assert drained.waiting == 2


def test_drain__with_scheduled__in_the_order_of_their_times() -> None:
    for n, delay in ((3, 3000), (1, 1000), (2, 2000)):
        enqueue(note, {"n": n}, delay=delay)
    assert drain() == Drained()
    assert drain(with_scheduled=True) == Drained(completed=3)
    assert SEEN == [1, 2, 3]


def test_drain__one_queue__leaves_the_others() -> None:
    enqueue(note, {"n": 1})
    enqueue(count, {})
    assert drain("kit_async") == Drained(completed=1)
    assert SEEN == []
    with pytest.raises(queues.UnknownQueue, match="did you mean 'kit_async'"):
        drain("kit_asinc")


def test_drain__no_end__raises_and_names_the_task() -> None:
    enqueue(again, {"delay": 0})
    with pytest.raises(EndlessDrain, match=r"after 20 runs, most of them of kit.again \(20\)"):
        drain(limit=20)
    Job.objects.update(state="COMPLETED")
    enqueue(again, {"delay": 3600})
    assert drain(limit=5) == Drained(completed=1)
    with pytest.raises(EndlessDrain, match=r"kit.again \(5\)"):
        drain(with_scheduled=True, limit=5)


def test_drain__raise_errors__the_handlers_own_once_it_is_recorded() -> None:
    job = enqueue(note, {"raises": "refused"})
    with pytest.raises(ConnectionError, match="refused"):
        drain(raise_errors=True)
    job.refresh_from_db()
    assert job.state == "FAILED"
    enqueue(note, {"raises": "Retry"})
    enqueue(note, {"raises": "Discard"})
    assert drain(raise_errors=True) == Drained(failed=1, cancelled=1)


def test_drain__coroutine__sees_the_tests_transaction_and_enqueues_in_it() -> None:
    job = enqueue(count, {})
    assert drain() == Drained(completed=2)
    job.refresh_from_db()
    assert (job.result, SEEN) == (2, ["child"])
    assert assert_enqueued(note, {"n": "child"}).parent == job.id


def test_drain__statement_of_a_handler_fails__the_tests_transaction_goes_on() -> None:
    job = enqueue(clash, {"raises": True})
    assert drain() == Drained(dead=1)
    job.refresh_from_db()
    assert job.last_error["type"] == "IntegrityError"
    assert Queue.objects.filter(name="kit_clash").exists() is not connection.in_atomic_block
    Queue.objects.filter(name="kit_clash").delete()
    caught = enqueue(clash, {"raises": False})
    assert drain() == Drained(completed=1)
    caught.refresh_from_db()
    assert caught.result == "caught"
    assert Queue.objects.filter(name="kit").exists()


def test_drain__hooks_of_a_handler__run_once_it_has_ended() -> None:
    enqueue(hook, {"raises": False})
    assert drain() == Drained(completed=1)
    assert SEEN == ["handler", "hook"] if connection.in_atomic_block else ["hook", "handler"]
    job = enqueue(hook, {"raises": True})
    assert drain() == Drained(dead=1)
    job.refresh_from_db()
    assert job.last_error["message"] == "from the hook"


def test_drain__soft_time_limit__interrupts_functions_and_coroutines() -> None:
    jobs = [enqueue(outstay, {}), enqueue(outstay_async, {})]
    assert drain() == Drained(dead=2)
    for job in jobs:
        job.refresh_from_db()
        assert job.last_error["type"] == "SoftTimeLimitExceeded"
    assert SEEN == [2]


def test_drain__cancelled_while_it_waits_or_runs__ends_so() -> None:
    job = enqueue(note, {})
    assert interventions.cancel(job, actor="test")
    asked = enqueue(note, {})
    Job.objects.filter(id=asked.id).update(cancel_requested=True)
    assert drain() == Drained(cancelled=1)
    assert SEEN == []


def test_drain__handler_has_a_durable_transaction__is_as_in_a_worker() -> None:
    job = enqueue(durable, {})
    assert drain(raise_errors=True) == Drained(completed=1)
    assert perform(durable, {}).last_error["type"] == "IntegrityError"
    assert Job.objects.get(id=job.id).state == "COMPLETED"


def test_drain__job_atomic__commits_with_its_end() -> None:
    job = enqueue(book, {})
    assert drain() == Drained(completed=1)
    job.refresh_from_db()
    assert (job.state, job.result, history(job)[-1]) == ("COMPLETED", {"booked": True}, "COMPLETED")
    assert Queue.objects.filter(name="kit_booked").exists()


def test_drain__workflows__are_released_with_their_results() -> None:
    flow = enqueue_workflow(
        chain(group(call(note, {"n": 1}), call(note, {"n": 2})), call(note, {"n": 3}, delay=60))
    )
    assert drain() == Drained(completed=2)
    assert drain(with_scheduled=True) == Drained(completed=1)
    last = flows.job_of(flow, 2)
    assert [result["n"] for result in last.result["before"]] == [1, 2]
    broken = enqueue_workflow(batch(call(note, {"raises": "Dead"}), on_death=call(note, {"n": "on death"})))
    assert drain() == Drained(completed=1, dead=1)
    assert SEEN[-1] == "on death"
    broken.refresh_from_db()
    assert broken.dead == 1


def test_drain__celery_task__retries_as_it_says() -> None:
    job = enqueue(stock, {"args": [1], "kwargs": {"b": 2}})
    assert drain() == Drained(failed=1)
    assert drain(with_retries=True) == Drained(completed=1)
    job.refresh_from_db()
    assert (job.result, SEEN) == (3, [("stock", 0), ("stock", 1)])


def test_drain__limited_queue__keeps_to_turns_and_rates() -> None:
    queues.find("kit")
    queues.configure("kit", actor=None, source="system", max_concurrency=1, is_fair=True)
    enqueue_many(note, [{"n": f"a{n}"} for n in range(3)], tenant="a")
    enqueue_many(note, [{"n": f"b{n}"} for n in range(3)], tenant="b")
    assert drain() == Drained(completed=6)
    assert SEEN[:2] == ["a0", "b0"]
    assert not Job.objects.exclude(turn=0).exists()
    queues.configure("kit", actor=None, source="system", rate_count=2, rate_period_s=3600.0, rate_burst=2)
    enqueue_many(note, [{"n": n} for n in range(5)], tenant="a")
    drained = drain()
    assert (drained, drained.waiting) == (Drained(completed=2), 3)
    limits = dict.fromkeys(("max_concurrency", "rate_count", "rate_period_s", "rate_burst"))
    queues.configure("kit", actor=None, source="system", is_fair=False, **limits)
    assert drain() == Drained(completed=3)


def test_drain__paused_queue__runs_nothing_of_it() -> None:
    queues.find("kit")
    queues.configure("kit", actor=None, source="system", paused=True)
    enqueue(note, {})
    assert drain().waiting == 1
    queues.configure("kit", actor=None, source="system", paused=False)
    assert drain() == Drained(completed=1)


def test_drain__worker_of_before_is_lost__its_job_is_taken_back_and_run() -> None:
    job, lost = enqueue(note, {}), workers.register(pool="threads", concurrency=1, queues=["kit"])
    assert ledger.exchange(lost.id, [job.id], [])[0]
    assert drain() == Drained()
    Worker.objects.filter(id=lost.id).update(
        lease_until=timezone.now() - timedelta(seconds=1), running=[str(job.id)]
    )
    assert drain() == Drained(completed=1)
    job.refresh_from_db()
    assert (job.crash_count, job.fence) == (1, 2)


def test_perform__runs_the_one_job__and_answers_with_its_row() -> None:
    waits = enqueue(note, {"n": "waits"})
    job = perform(note, {"n": 7}, request_id="r-1", priority=2)
    assert (job.state, job.result["n"], job.result["id"], job.priority) == ("COMPLETED", 7, "r-1", 2)
    assert perform(breed, {"children": 2}).state == "COMPLETED"
    assert SEEN == [7]
    waits.refresh_from_db()
    assert waits.state == "PENDING"
    failed = perform(note, {"raises": "refused"})
    assert (failed.state, failed.last_error["message"]) == ("FAILED", "refused")
    assert perform(note, {"raises": "refused"}, attempt=2).state == "DEAD_LETTER"
    assert perform(note, {}, delay=3600).state == "COMPLETED"
    with pytest.raises(ConnectionError):
        perform(note, {"raises": "refused"}, raise_errors=True)
    with pytest.raises(ValueError, match="a payload is a dict"):
        perform(note, "text")
    with pytest.raises(ValueError, match="attempt = 0"):
        perform(note, {}, attempt=0)


def test_perform__limited_queue_and_delay__runs_all_the_same() -> None:
    queues.find("kit")
    queues.configure("kit", actor=None, source="system", rate_count=1, rate_period_s=3600.0, paused=True)
    for n in range(3):
        assert perform(note, {"n": n}, delay=60).state == "COMPLETED"
    assert not Job.objects.exclude(turn=0).exists()


def test_no_broker__what_was_published__is_counted_by_queue() -> None:
    if connection.in_atomic_block:
        return  # nothing commits
    with no_broker() as published:
        jobs = enqueue_many(note, [{}, {}])
        enqueue(note, {}, delay=60)
        enqueue(count, {})
        stock.delay(1)
    assert published.by_queue == {"kit": 2, "kit_async": 1}
    assert [one.id for one in published.wakeups[:2]] == [job.id for job in jobs]
    assert [(queue, name) for queue, name, _ in published.messages] == [("default", "kit.stock")]


def test_adrain__from_a_coroutine__runs_jobs() -> None:
    async def go() -> Drained:
        await aenqueue(count, {})
        return await adrain()

    assert async_to_sync(go)() == Drained(completed=2)  # as Django runs an async test of a TestCase


def test_drain__interrupted__the_drain_ends_and_the_job_waits_uncharged() -> None:
    jobs = [enqueue(interrupted, {"is_last": is_last}) for is_last in (False, True)]
    with pytest.raises(KeyboardInterrupt):
        drain()
    states = [(job.state, job.attempt) for job in Job.objects.filter(id__in=[job.id for job in jobs])]
    assert states == [("PENDING", 0), ("PENDING", 0)]
    SEEN.append("no Ctrl-C any more")
    assert drain() == Drained(completed=2)
