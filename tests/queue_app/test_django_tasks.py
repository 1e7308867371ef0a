"""The ledger as a backend of Django's task framework: what DEP 14 asks of one, on real rows and with real runs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django import VERSION
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from queue_app import cancelling, deadletter, enqueue, ledger, queues, registry, workers
from queue_app.models import Job, JobEvent, Worker
from queue_app.payloads import BadPayload
from queue_app.performing import perform
from queue_app.runs import Run
from queue_app.states import State
from queue_app.testing import Drained, assert_enqueued, drain, eager, fail

from .conftest import until

if VERSION < (6, 0) and not importlib.util.find_spec("django_tasks"):
    if os.environ.get("CI"):
        pytest.fail("django-tasks is not installed", pytrace=False)
    pytest.skip("django-tasks is not installed", allow_module_level=True)

from queue_app import django_tasks as backend_module
from queue_app import task_results
from queue_app.django_tasks import LedgerBackend, ledger_priority
from queue_app.tasks_framework import (
    InvalidTask,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_enqueued,
    task_finished,
    task_started,
)

if VERSION >= (6, 0):
    from django.tasks import task, task_backends
    from django.tasks.exceptions import TaskResultMismatch
else:
    from django_tasks import task, task_backends
    from django_tasks.exceptions import TaskResultMismatch

BACKEND = "queue_app.django_tasks.LedgerBackend"
TASKS = {
    "default": {"BACKEND": BACKEND, "QUEUES": []},
    "patient": {"BACKEND": BACKEND, "QUEUES": [], "OPTIONS": {"max_retries": 2}},
    "narrow": {"BACKEND": BACKEND, "QUEUES": ["letters"]},
}
READY, RUNNING = TaskResultStatus.READY, TaskResultStatus.RUNNING
FAILED, SUCCESSFUL = TaskResultStatus.FAILED, TaskResultStatus.SUCCESSFUL

with override_settings(TASKS=TASKS):
    from .jobs_app import framework

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    with override_settings(TASKS=TASKS):
        framework.calls.clear()
        yield


@pytest.fixture
def worker() -> Worker:
    return workers.register(pool="threads", concurrency=1, queues=[])


@pytest.fixture
def heard() -> Iterator[list[tuple[str, str, Any]]]:
    """(signal, status, id) of all that is sent."""
    found: list[tuple[str, str, Any]] = []
    signals = {"enqueued": task_enqueued, "started": task_started, "finished": task_finished}
    receivers = []
    for name, signal in signals.items():

        def hear(sender: Any, task_result: Any, name: str = name, **more: Any) -> None:
            assert sender is LedgerBackend
            found.append((name, str(task_result.status), task_result.id))

        signal.connect(hear, weak=False)
        receivers.append((signal, hear))
    yield found
    for signal, hear in receivers:
        signal.disconnect(hear)


def run(worker: Worker, result: Any) -> Any:
    """Claim the job, run it and record its end, as the engine does."""
    (claimed,) = ledger.exchange(worker.id, [UUID(result.id)], [])[0]
    end = perform(Run(claimed, worker.id))
    assert ledger.exchange(worker.id, [], [end])[1] == {claimed.id}
    result.refresh()
    return result


# --- declaring --------------------------------------------------------------------------------------------------------
def test_flags__all_that_the_framework_knows__are_true() -> None:
    flags = ["supports_defer", "supports_async_task", "supports_get_result", "supports_priority"]
    assert [getattr(task_backends["default"], flag) for flag in flags] == [True] * 4


def test_task__declared__is_known_to_the_ledgers_workers() -> None:
    found = registry.find(framework.add.module_path)
    assert isinstance(found, backend_module.DeclaredTask)
    assert found.function is framework.add.func
    assert found.queue == "default"
    assert "letters" in queues.declared()


def test_task__used_with_other_options__declaration_stays() -> None:
    before = registry.find(framework.add.module_path)
    framework.add.using(queue_name="elsewhere", priority=5)
    assert registry.find(framework.add.module_path) is before


def test_task__what_cannot_be_one__is_refused() -> None:
    def inner() -> None: ...

    with pytest.raises(InvalidTask):
        task(inner)
    with pytest.raises(InvalidTask):
        task(lambda: None)
    for changes in (
        {"priority": 101},
        {"priority": -101},
        {"priority": 1.5},
        {"queue_name": "not a name"},
        {"queue_name": "x", "backend": "narrow"},
        {"run_after": timezone.now().replace(tzinfo=None)},
    ):
        with pytest.raises(InvalidTask):
            framework.add.using(**changes)
    with pytest.raises(InvalidTask):
        task(takes_context=True)(framework.add.func)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(-100, 0), (-67, 0), (-34, 1), (-1, 2), (0, 3), (1, 4), (50, 6), (51, 7), (99, 9), (100, 9)],
)
def test_ledger_priority__on_the_frameworks_scale__keeps_the_order(given: int, expected: int) -> None:
    assert ledger_priority(given) == expected
    assert ledger_priority(given - 1 if given > -100 else given) <= expected


# --- enqueue ----------------------------------------------------------------------------------------------------------
def test_enqueue__task__is_a_job_and_a_ready_result(heard: list[Any]) -> None:
    result = framework.tell.using(priority=-50).enqueue("a", b="c")
    job = Job.objects.get(id=result.id)
    assert (job.name, job.queue, job.priority, job.max_attempts) == (
        framework.tell.module_path,
        "letters",
        1,
        1,
    )
    assert (result.status, result.is_finished, result.attempts) == (READY, False, 0)
    assert (result.args, result.kwargs, result.backend) == (["a"], {"b": "c"}, "default")
    assert (result.errors, result.worker_ids, result.started_at) == ([], [], None)
    assert result.enqueued_at == job.created_at
    assert heard == [("enqueued", "READY", result.id)]
    again = framework.tell.get_result(result.id)
    assert again == result
    with pytest.raises(ValueError, match="not finished"):
        _ = result.return_value


def test_enqueue__transaction_is_rolled_back__there_is_no_such_job() -> None:
    with pytest.raises(KeyError), transaction.atomic():
        result = framework.add.enqueue(1)
        raise KeyError
    with pytest.raises(TaskResultDoesNotExist):
        framework.add.get_result(result.id)


def test_enqueue__run_after__not_before(worker: Worker) -> None:
    moment = timezone.now() + timedelta(hours=1)
    result = framework.tell.using(run_after=moment).enqueue()
    assert framework.tell.get_result(result.id).task.run_after == moment
    assert ledger.exchange(worker.id, [UUID(result.id)], [])[0] == []
    Job.objects.update(run_after=timezone.now() - timedelta(seconds=1))
    assert run(worker, result).return_value["run_after"] is True


@pytest.mark.parametrize(
    ("args", "kwargs", "error"),
    [
        ((object(),), {}, TypeError),
        ((b"\xff",), {}, ValueError),
        ((1, 2, 3), {}, BadPayload),
        ((), {"a": 1, "nothing": 2}, BadPayload),
        (("\0",), {}, BadPayload),
    ],
)
def test_enqueue__bad_arguments__nothing_is_stored(args: Any, kwargs: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        framework.add.enqueue(*args, **kwargs)
    assert Job.objects.count() == 0


@pytest.mark.parametrize("payload", [{"args": 1}, {"kwargs": []}])
def test_enqueue__by_the_ledgers_own_hand__runs_as_the_frameworks(payload: Any) -> None:
    """As a schedule, a workflow, the API or an edited payload does: by the arguments alone."""
    with pytest.raises(BadPayload, match=r'is {"args": \[...\], "kwargs": {...}}'):
        enqueue(framework.fail_once.module_path, payload)
    job = enqueue(framework.tell.module_path, {"args": ["a", "b"]})
    refused = enqueue(framework.refuse.module_path, {})
    assert (job.max_attempts, enqueue(framework.fail_once.module_path, {}).max_attempts) == (1, 3)
    assert drain(with_retries=True) == Drained(completed=2, failed=1, dead=1)
    result = framework.tell.get_result(str(job.id))
    assert (result.status, result.args, result.task.priority) == (SUCCESSFUL, ["a", "b"], 10)
    assert result.return_value["args"] == ["a", "b"]
    assert framework.refuse.get_result(str(refused.id)).errors[0].exception_class is framework.Refused


def test_enqueue__queue_has_broker_delivery__is_refused() -> None:
    queues.create_queue("brokered", actor="ada", source="cli")
    queues.configure("brokered", delivery="broker", actor="ada", source="cli")
    with pytest.raises(InvalidTask, match="broker delivery"):
        framework.add.using(queue_name="brokered").enqueue(1)
    assert Job.objects.count() == 0


# --- run --------------------------------------------------------------------------------------------------------------
def test_run__sync_task__successful_with_its_value_and_worker(worker: Worker, heard: list[Any]) -> None:
    result = run(worker, framework.add.enqueue(2, b=3))
    assert (result.status, result.return_value, result.is_finished) == (SUCCESSFUL, 5, True)
    assert (result.worker_ids, result.attempts, result.errors) == ([str(worker.id)], 1, [])
    assert result.enqueued_at <= result.started_at == result.last_attempted_at <= result.finished_at
    assert [(name, status) for name, status, _ in heard] == [
        ("enqueued", "READY"),
        ("started", "RUNNING"),
        ("finished", "SUCCESSFUL"),
    ]


def test_run__task_takes_the_context__knows_its_result_and_attempt(worker: Worker) -> None:
    result = run(worker, framework.tell.enqueue("a", b="c"))
    assert result.return_value == {
        "attempt": 1,
        "id": result.id,
        "status": "RUNNING",
        "args": ["a"],
        "kwargs": {"b": "c"},
        "run_after": False,
    }


@pytest.mark.django_db(transaction=True)
def test_run__async_task__with_and_without_context(worker: Worker) -> None:
    assert run(worker, framework.aadd.enqueue(2, 3)).return_value == 5
    assert run(worker, framework.atell.enqueue()).return_value == 1


def test_run__raises__failed_with_class_and_traceback(worker: Worker, heard: list[Any]) -> None:
    result = run(worker, framework.refuse.enqueue("too late"))
    assert (result.status, result.is_finished) == (FAILED, True)
    with pytest.raises(ValueError, match="failed"):
        _ = result.return_value
    (error,) = result.errors
    assert error.exception_class is framework.Refused
    assert "too late" in error.traceback
    assert "Traceback" in error.traceback
    assert heard[-1][:2] == ("finished", "FAILED")
    assert Job.objects.get(id=result.id).state == State.DEAD_LETTER


def test_run__answers_what_is_not_json__failed(worker: Worker) -> None:
    result = run(worker, framework.answer_object.enqueue())
    assert result.status == FAILED
    assert result.errors[0].exception_class is TypeError


def test_run__backend_with_retries__ready_again_and_then_successful(worker: Worker, heard: list[Any]) -> None:
    result = run(worker, framework.fail_once.enqueue())
    assert (result.status, result.attempts, len(result.errors)) == (READY, 1, 1)
    Job.objects.update(run_after=timezone.now() - timedelta(seconds=1))
    run(worker, result)
    assert (result.status, result.return_value, result.attempts) == (SUCCESSFUL, "at last", 2)
    assert result.started_at < result.last_attempted_at
    assert [name for name, _, _ in heard] == ["enqueued", "started", "started", "finished"]


def test_run__receiver_of_a_signal_fails__job_does_not(worker: Worker) -> None:
    def fall(**told: Any) -> None:
        raise RuntimeError

    task_started.connect(fall)
    try:
        assert run(worker, framework.add.enqueue(1)).status == SUCCESSFUL
    finally:
        task_started.disconnect(fall)


def test_result__running_cancelled_and_replayed__as_the_row_says(worker: Worker) -> None:
    result = framework.add.enqueue(1)
    (claimed,) = ledger.exchange(worker.id, [UUID(result.id)], [])[0]
    result.refresh()
    assert (result.status, result.attempts, result.finished_at) == (RUNNING, 1, None)
    assert claimed.payload["args"] == [1]
    other = framework.add.enqueue(1)
    cancelling.cancel(Job.objects.get(id=other.id), actor="ada", source="cli")
    other.refresh()
    assert (other.status, other.errors, other.attempts) == (FAILED, [], 0)
    dead = run(worker, framework.refuse.enqueue())
    deadletter.replay(Job.objects.get(id=dead.id), actor="ada", source="cli")
    dead.refresh()
    assert (dead.status, dead.attempts) == (READY, 1)


def test_attempts__claim_was_given_back_or_its_worker_died__only_what_ran_counts() -> None:
    job = enqueue("email_queue", {})
    for state, detail in (
        (State.PROCESSING, {}),
        (State.PENDING, {"reason": "given back"}),
        (State.PENDING, {"action": "aged"}),
        (State.PROCESSING, {}),
        (State.PROCESSING, {"action": "cancel requested"}),
        (State.PENDING, {"reason": "worker lost", "charged": True}),
        (State.PROCESSING, {}),
    ):
        JobEvent.objects.create(job=job, state=state, detail=detail, worker=uuid4())
    assert len(task_results.attempts(job.events.all())) == 2


def test_task_error__worker_was_lost__is_an_exception_all_the_same() -> None:
    told = {"type": "WorkerLost", "message": "worker lost, again and again", "traceback": ""}
    error = task_results.task_error(told)
    assert issubclass(error.exception_class, Exception)
    assert "again and again" in error.traceback
    assert task_results.task_error({"type": "OSError", "message": "no"}).exception_class is OSError


# --- results ----------------------------------------------------------------------------------------------------------
def test_get_result__unknown_strange_or_of_others__does_not_exist() -> None:
    ours = enqueue("email_queue", {})
    for id in (str(uuid4()), "no-id", "", str(ours.id)):
        with pytest.raises(TaskResultDoesNotExist):
            task_backends["default"].get_result(id)
    result = framework.add.enqueue(1)
    with pytest.raises(TaskResultDoesNotExist):
        task_backends["patient"].get_result(result.id)
    with pytest.raises(TaskResultMismatch):
        framework.refuse.get_result(result.id)
    Job.objects.filter(id=result.id).update(name="gone.from.the.code")
    with pytest.raises(TaskResultDoesNotExist):
        framework.add.get_result(result.id)


def test_get_result__large_arguments__are_read_from_where_they_are() -> None:
    result = framework.tell.enqueue("x" * 200_000)
    assert Job.objects.get(id=result.id).payload is None
    assert framework.tell.get_result(result.id).args == ["x" * 200_000]


@pytest.mark.django_db(transaction=True)
async def test_async__enqueue_and_results__the_same() -> None:
    result = await framework.aadd.aenqueue(1, 2)
    again = await framework.aadd.aget_result(result.id)
    assert again == result
    await again.arefresh()
    assert again.status == READY


# --- checks -----------------------------------------------------------------------------------------------------------
def test_check__settings_that_do_not_fit__say_so() -> None:
    assert list(task_backends["patient"].check()) == []
    params = {"QUEUES": ["not a name"], "OPTIONS": {"max_retries": 101, "retries": 1}}
    found = list(LedgerBackend("default", params).check())
    assert {message.id for message in found} == {"queue.E010"}
    assert len(found) == 3


# --- a real worker ----------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_worker__module_that_nobody_has_imported__runs_its_tasks(
    start_worker: Callable[..., Any], pool: tuple[str, ...]
) -> None:
    start_worker(*pool)
    results = [framework.add.enqueue(1, 2), framework.atell.enqueue(), framework.refuse.enqueue()]
    until(lambda: all(_refreshed(result).is_finished for result in results), "all three end")
    added, told, refused = results
    assert (added.return_value, told.return_value) == (3, 1)
    assert refused.errors[0].exception_class is framework.Refused


def _refreshed(result: Any) -> Any:
    result.refresh()
    return result


@pytest.mark.django_db(transaction=True)
def test_testing_kit__tasks_of_the_framework__are_asserted_run_and_made_to_fail() -> None:
    result = framework.add.enqueue(2, b=3)
    assert str(assert_enqueued(framework.add, {"args": [2], "kwargs": {"b": int}}).id) == result.id
    with fail(framework.add, OSError("no"), times=1):
        assert drain() == Drained(dead=1)
        failed, result = framework.add.get_result(result.id), framework.add.enqueue(2, b=3)
        assert drain() == Drained(completed=1)
    assert (failed.status, framework.add.get_result(result.id).return_value) == (FAILED, 5)
    with eager():
        assert framework.aadd.get_result(framework.aadd.enqueue(2, 3).id).return_value == 5
