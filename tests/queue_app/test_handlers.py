"""What a handler is called with and where: typed payloads, Celery's tasks, coroutines on the process's loop."""

from __future__ import annotations

import asyncio
import ctypes
import json
import threading
import time
from typing import Any

import pytest
import structlog
from asgiref.sync import sync_to_async
from celery import current_task, shared_task
from celery.exceptions import Ignore, Reject
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection

from foundation import request_id
from queue_app import (
    DeadLetter,
    Discard,
    Retry,
    aenqueue,
    async_loop,
    enqueue,
    ledger,
    registry,
    task,
    wakeup,
    workers,
)
from queue_app.broker.handlers import BrokerRun
from queue_app.models import Job
from queue_app.payloads import BadPayload
from queue_app.performing import perform
from queue_app.runs import Cancelled, Run
from queue_app.statements import Claimed
from queue_app.states import State
from queue_app.uuid7 import uuid7

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))
    monkeypatch.setattr(wakeup, "publish", lambda wakeups: True)


def a_run(name: str, payload: Any = None, *, attempt: int = 0) -> Run:
    worker, counts = uuid7(), (attempt, 4, 0, 1)
    job = Claimed(
        uuid7(),
        name,
        "q",
        "",
        3,
        {} if payload is None else payload,
        *counts,
        False,
        False,
        "r-1",
        None,
        False,
    )
    return Run(job, worker)


# --- typed -----------------------------------------------------------------------------------------------------------
def test_typed__pydantic_model__is_checked_at_enqueue_and_handed_over() -> None:
    pydantic = pytest.importorskip("pydantic")
    date = pytest.importorskip("datetime").date

    class Card(pydantic.BaseModel):
        number: str

    class Order(pydantic.BaseModel):
        model_config = {"strict": True}
        card: Card
        day: date
        items: list[int] = []

    class Keeper(pydantic.BaseModel):
        password: pydantic.SecretStr

    got: list[Any] = []

    def handler(order: Order, job: Run) -> str:
        got.append(order)
        return order.card.number

    def keeper(payload: Keeper) -> None:
        got.append(payload)

    # As annotations are in a module without `from __future__ import annotations`.
    handler.__annotations__["order"], keeper.__annotations__["payload"] = Order, Keeper
    task(name="order", queue="q", secret_fields=["card.number"])(handler)
    task(name="keep", queue="q", secret_fields=["password"])(keeper)
    order = Order(card=Card(number="4111"), day=date(2026, 1, 2), items=[1])
    good = {"card": {"number": "4111"}, "day": "2026-01-02", "items": [1]}
    for payload in (order, good):
        job = enqueue("order", payload)
        assert "4111" not in str(Job.objects.get(id=job.id).payload)
        assert registry.find("order").perform(a_run("order", job.payload)) == "4111"
    assert got == [order, order]
    enqueue("keep", {"password": "hunter2"})
    for wrong, said in (
        ({"day": "2026-01-02"}, "card: Field required"),
        (good | {"items": [1, "x"]}, r"items\.1: Input should be a valid integer"),
        (good | {"card": {}, "day": "?"}, r"card\.number: Field required; day: "),
        ([], "a payload is a dict"),
    ):
        with pytest.raises(BadPayload, match=said) as raised:
            enqueue("order", wrong)
        assert "4111" not in str(raised.value)
    with pytest.raises(BadPayload, match="does not survive"):
        enqueue("keep", Keeper(password="hunter2"))  # it would be written as asterisks


# --- Celery's tasks --------------------------------------------------------------------------------------------------
@shared_task(name="tests.add", bind=True, autoretry_for=(KeyError,), default_retry_delay=7, max_retries=5)
def add(self: Any, first: int, second: int = 1) -> dict[str, Any]:
    raised = {13: KeyError(), 15: Reject("unlucky"), 16: Ignore(), 17: OSError("not named")}.get(first)
    if raised is not None:
        raise raised
    if first == 14:
        self.retry(countdown=5, exc=OSError())
    return {"sum": first + second, "retries": self.request.retries, "current": current_task.name}


def test_celery_task__enqueued_to_the_ledger__runs_in_a_celery_request() -> None:
    job = enqueue(add, {"args": [1], "kwargs": {"second": 2}})
    assert (job.name, job.queue, job.max_attempts) == ("tests.add", "default", 6)
    assert enqueue("tests.add", {"args": [1]}).name == "tests.add"
    end = perform(a_run("tests.add", job.payload, attempt=2))
    assert end.state == State.COMPLETED
    assert end.result == '{"sum":3,"retries":2,"current":"tests.add"}'


@pytest.mark.parametrize(
    ("first", "attempt", "state", "delay_s"),
    [
        (13, 0, "FAILED", 7),
        (14, 0, "FAILED", 5),
        (14, 5, "DEAD_LETTER", None),
        (15, 0, "DEAD_LETTER", None),
        (16, 0, "COMPLETED", None),
        (17, 0, "DEAD_LETTER", None),
    ],
)
def test_celery_task__retries_rejects_or_fails__as_its_decorator_says(
    first: int, attempt: int, state: str, delay_s: float | None
) -> None:
    end = perform(a_run("tests.add", {"args": [first]}, attempt=attempt))
    assert (end.state, end.delay_s) == (state, delay_s)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"args": [1, 2, 3]}, "do not fit"),
        ({}, "missing a required argument"),
        ({"args": [1], "kwargs": {"third": 3}}, "third"),
        ({"first": 1}, 'is {"args"'),
        ({"args": 1}, 'is {"args"'),
    ],
)
def test_celery_task__arguments_do_not_fit__is_refused(payload: dict[str, Any], said: str) -> None:
    with pytest.raises(BadPayload, match=said):
        enqueue(add, payload)
    with pytest.raises(registry.UnknownTask):
        enqueue("queue_app.run", {"args": []})


# --- what a handler raises -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("raised", "state", "detail"),
    [
        (Retry("later", after=9), "FAILED", '"retry_in_s": 9'),
        (Discard("gone"), "CANCELLED", '"reason": "gone"'),
        (DeadLetter("never"), "DEAD_LETTER", '"reason": "not retried"'),
        (ValueError("no"), "DEAD_LETTER", '"reason": "not retried"'),
        (OSError("no"), "FAILED", '"retry_in_s": '),
        (SystemExit(3), "FAILED", '"error": "SystemExit"'),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_perform__handler_raises__ends_as_it_says(
    raised: BaseException, state: str, detail: str, is_async: bool
) -> None:
    def fail(payload: dict[str, Any]) -> None:
        raise raised

    async def afail(payload: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        raise raised

    task(name="fail", queue="q", never_retry_on=[ValueError])(afail if is_async else fail)
    end = perform(a_run("fail"))
    assert end.state == state
    assert detail in end.detail


# --- async -----------------------------------------------------------------------------------------------------------
def test_async__many_at_once__one_loop_each_with_its_own_connection() -> None:
    used: list[tuple[str, int, Any]] = []
    meet = threading.Barrier(4, timeout=60)

    async def handler(payload: dict[str, Any]) -> str | None:
        def query() -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            used.append((threading.current_thread().name, id(connection.connection), connection.connection))
            meet.wait()

        await sync_to_async(query)()
        assert structlog.contextvars.get_contextvars()["request_id"] == "r-1"
        child = await aenqueue("tests.add", {"args": [1]})
        assert child.parent is not None
        loops.add(asyncio.get_running_loop())
        return request_id.current()

    loops: set[Any] = set()
    task(name="talk", queue="q")(handler)
    ends: list[Any] = []
    runs = [a_run("talk") for _ in range(4)]
    threads = [threading.Thread(target=lambda run=run: ends.append(perform(run))) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [end.result for end in ends] == ['"r-1"'] * 4, ends
    assert len(loops) == 1
    assert len({id_ for _, id_, _ in used}) == 4
    for _, _, raw in used:
        with pytest.raises(Exception, match="closed"):
            raw.execute("SELECT 1")
    assert {job.parent for job in Job.objects.all()} == {run.id for run in runs}


def test_async__job_is_cancelled__coroutine_cleans_up_and_ends() -> None:
    cleaned: list[str] = []

    async def handler(payload: dict[str, Any]) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append("yes")

    task(name="sleep", queue="q")(handler)
    run = a_run("sleep")
    threading.Timer(0.1, lambda: setattr(run, "cancel_requested", True)).start()
    began = time.monotonic()
    assert perform(run).state == State.CANCELLED
    assert time.monotonic() - began < 30
    assert cleaned == ["yes"]
    with pytest.raises(Cancelled):
        registry.find("sleep").perform(run)


def stored_run(name: str, kind: type[Run] = Run) -> Run:
    """Of a job that a worker has claimed."""
    worker = workers.register(pool="threads", concurrency=1, queues=["q"])
    job = enqueue(name, {}, queue="q")
    ((claimed,), _) = ledger.exchange(worker.id, [job.id], [])
    return kind(claimed, worker.id)


def test_aprogress_and_acheck__job_is_cancelled__told_once_and_cleans_up() -> None:
    steps: list[str] = []

    async def handler(payload: dict[str, Any], job: Run) -> None:
        await job.acheck()
        await job.aprogress(0.5, "half")
        steps.append(threading.current_thread().name)
        await sync_to_async(Job.objects.filter(id=job.id).update)(cancel_requested=True)
        job._looks_at = 0.0
        try:
            await job.aprogress(0.75)
        finally:
            await asyncio.sleep(3 * async_loop.LOOK_S)
            steps.append("cleaned up")

    task(name="reports", queue="q")(handler)
    run = stored_run("reports")
    assert perform(run).state == State.CANCELLED
    assert steps == ["queue-async", "cleaned up"]
    row = Job.objects.get()
    assert (row.progress, row.progress_note) == (0.75, "")


@pytest.mark.parametrize("kind", [Run, BrokerRun])
def test_sync_methods__on_the_event_loop__are_refused_with_the_way(kind: type[Run]) -> None:
    async def handler(payload: dict[str, Any], job: Run) -> list[str]:
        said = []
        for method in (job.check, lambda: job.progress(0.5), job.atomic().__enter__):
            with pytest.raises(SynchronousOnlyOperation) as refused:
                method()
            said.append(str(refused.value))
        await sync_to_async(job.check)()
        return said

    task(name="wrong", queue="q")(handler)
    said = json.loads(perform(stored_run("wrong", kind)).result or "")
    assert "await job.acheck()" in said[0]
    assert "await job.aprogress" in said[1]
    assert "sync handler" in said[2]


def test_async__exception_for_the_waiting_thread__reaches_the_coroutine() -> None:
    class Limit(Exception):
        pass

    ended: list[str] = []
    waiting = ctypes.c_ulong(threading.get_ident())
    raise_it = ctypes.pythonapi.PyThreadState_SetAsyncExc

    async def handler(payload: dict[str, Any]) -> None:
        await asyncio.sleep(0.1)  # the thread waits for it by now
        raise_it(waiting, ctypes.py_object(Limit))
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    task(name="sleep", queue="q", never_retry_on=[Limit])(handler)
    end = perform(a_run("sleep"))
    assert (end.state, ended) == (State.DEAD_LETTER, ["cancelled"])


def test_async__cancelled_before_its_first_step__ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(payload: dict[str, Any]) -> None:
        pytest.fail("it ran")

    task(name="late", queue="q")(handler)
    start = async_loop._Job.start

    def interrupted(job: async_loop._Job, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon_threadsafe(time.sleep, 0.1)  # the loop is busy while all of this comes to it
        start(job, loop)
        raise SystemExit

    monkeypatch.setattr(async_loop._Job, "start", interrupted)
    assert perform(a_run("late")).state == State.FAILED


def test_async__handler_cancels_itself__is_a_failure() -> None:
    async def handler(payload: dict[str, Any]) -> None:
        raise asyncio.CancelledError

    task(name="odd", queue="q")(handler)
    end = perform(a_run("odd"))
    assert (end.state, "cancelled itself" in str(end.error)) == (State.FAILED, True)


def test_async__handler_is_quick__starts_no_thread() -> None:
    async def handler(payload: dict[str, Any]) -> int:
        return payload["n"]

    task(name="quick", queue="q")(handler)
    assert registry.find("quick").perform(a_run("quick", {"n": 1})) == 1
    before = threading.active_count()
    assert [registry.find("quick").perform(a_run("quick", {"n": n})) for n in range(20)] == list(range(20))
    assert threading.active_count() <= before  # those of other tests may end
    assert async_loop._running_loop() is async_loop._running_loop()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"time_limit_s": 0}, "time_limit_s = 0"),
        ({"retry_budget": 1.5}, "retry_budget"),
        ({"retry_on": ["OSError"]}, "exception class"),
        ({"secret_fields": "card.number"}, "dotted paths"),
        ({"priority": 3}, "no option 'priority'"),
        ({"max_retry": 3}, "did you mean 'max_retries'"),
    ],
)
def test_task__bad_option__is_refused_where_it_is_written(options: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        task(name="bad", **options)(lambda payload: None)


def test_perform__handler_raises__the_history_keeps_the_error_with_the_end_of_its_traceback() -> None:
    @task(name="falls", queue="email_queue", max_retries=1)
    def falls(payload: dict[str, Any]) -> None:
        raise ValueError(f"number {payload['n']} fell" + "!" * 900)

    detail = json.loads(perform(a_run("falls", {"n": 7})).detail)
    assert (detail["error"], detail["message"][:13], len(detail["message"])) == (
        "ValueError",
        "number 7 fell",
        500,
    )
    assert "in falls" in detail["traceback"]
    assert len(detail["traceback"]) <= 4096
