"""enqueue on every database: options, unique keys, large and secret payloads, lineage; and what it refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.utils import timezone

from foundation import request_id
from queue_app import (
    clock,
    enqueue,
    enqueue_many,
    intake,
    ledger,
    lineage,
    offload,
    queues,
    registry,
    retention,
    task,
    wakeup,
    workers,
)
from queue_app.models import Blob, Job, JobEvent, Worker
from queue_app.publication import Wakeup
from queue_app.runs import Run
from queue_app.statements import End
from queue_app.states import Priority, State
from queue_app.unique import Unique

pytestmark = pytest.mark.usefixtures("every_database")

LARGE = {"text": "ü" * 40_000}


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Wakeup]:
    messages: list[Wakeup] = []
    monkeypatch.setattr(wakeup, "publish", lambda wakeups: messages.extend(wakeups) or True)
    return messages


@pytest.fixture(autouse=True)
def tasks() -> Iterator[None]:
    before = dict(registry._tasks)
    task(name="plain", queue="here")(seen.append)
    task(name="other", queue="there", max_retries=7)(lambda payload: None)
    task(name="secret", queue="secrets", secret_fields=["card.number"])(lambda payload: seen.append(payload))
    yield
    registry._tasks.clear()
    registry._tasks.update(before)
    seen.clear()


seen: list[Any] = []


@pytest.fixture
def worker() -> Worker:
    return workers.register(pool="threads", concurrency=1, queues=["here"])


def start(worker: Worker, job: Job) -> Run:
    ((claimed,), _) = ledger.exchange(worker.id, [job.id], [])
    return Run(claimed, worker.id)


def end(worker: Worker, run: Run, state: State = State.COMPLETED) -> None:
    assert ledger.exchange(worker.id, [], [End(run.id, run.fence, state, 1, error="{}", delay_s=0)])[1]


def stored() -> int:
    return Job.objects.count()


# --- options ---------------------------------------------------------------------------------------------------------
def test_enqueue__all_options__are_in_the_row() -> None:
    at = timezone.now() + timedelta(hours=1)
    options: dict[str, Any] = {
        "run_at": at,
        "expires": timedelta(minutes=5),
        "tenant": "acme",
        "max_retries": 1,
    }
    job = enqueue("plain", {"n": 1}, queue="there", priority=Priority.HIGH, request_id="r-9", **options)
    row = Job.objects.get()
    for found in (job, row):
        assert (found.id, found.name, found.queue, found.priority) == (row.id, "plain", "there", 6)
        assert (found.tenant, found.request_id, found.max_attempts, found.state) == (
            "acme",
            "r-9",
            2,
            "PENDING",
        )
        assert found.payload == {"n": 1}
        assert (found.published_at, found.run_after) == (None, at)
        assert found.expires_at == at + timedelta(minutes=5)
    assert enqueue("other", {}).max_attempts == 8


def test_enqueue__delay__seconds_or_a_timedelta_from_now(sent: list[Wakeup]) -> None:
    for delay in (90, 90.0, timedelta(seconds=90)):
        job = enqueue("plain", {}, delay=delay)
        assert 89 < (job.run_after - job.created_at).total_seconds() < 91
    assert sent == []
    past = enqueue("plain", {}, run_at=timezone.now() - timedelta(days=1), delay=0)
    assert past.run_after is None
    assert [message.id for message in sent] == [past.id]


@pytest.mark.parametrize("off_s", [3600, -3600])
def test_enqueue__callers_clock_is_off__what_is_relative_goes_by_the_databases(
    off_s: int, monkeypatch: pytest.MonkeyPatch, sent: list[Wakeup]
) -> None:
    true, policy = clock.read(), queues.find("here")
    soon = true + timedelta(seconds=60)
    monkeypatch.setattr(intake.timezone, "now", lambda: true + timedelta(seconds=off_s))
    monkeypatch.setattr(queues, "find", lambda name: policy)  # its cache goes by that clock as well

    def is_in(at: datetime, wait_s: float) -> bool:
        return 0 <= (at - true).total_seconds() - wait_s < 10

    assert is_in(enqueue("plain", {}, delay=90).run_after, 90)
    assert is_in(enqueue("plain", {}, expires=90).expires_at, 90)
    both = enqueue("plain", {}, delay=90, expires=90)
    assert is_in(both.run_after, 90)
    assert is_in(both.expires_at, 180)
    assert is_in(enqueue("plain", {}, unique=Unique("window", for_s=90)).unique_until, 90)
    assert is_in(enqueue("plain", {}, unique=Unique("bounce", debounce_s=90)).run_after, 90)
    assert enqueue("plain", {}, run_at=soon).run_after == soon  # as given, whatever this host thinks is past
    assert enqueue("plain", {}, run_at=true - timedelta(seconds=60)).run_after is None


def test_enqueue__no_time_given__does_not_ask_for_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[datetime] = []
    read = clock.read
    monkeypatch.setattr(clock, "_last", None)
    monkeypatch.setattr(clock, "read", lambda: reads.append(read()) or reads[-1])
    enqueue("plain", {}, delay=0, unique="key")
    assert reads == []
    for _ in range(3):
        enqueue("plain", {}, delay=1)
    assert len(reads) == (0 if connection.vendor == "sqlite" else 1)  # SQLite's clock is this host's


def test_enqueue_many__thousands__one_order_in_few_statements(django_assert_max_num_queries: Any) -> None:
    queues.find("here")
    with django_assert_max_num_queries(12):
        jobs = enqueue_many("plain", ({"n": n} for n in range(2500)))
    assert [row["n"] for row in Job.objects.order_by("id").values_list("payload", flat=True)] == list(
        range(2500)
    )
    assert [job.payload["n"] for job in jobs] == list(range(2500))
    assert JobEvent.objects.count() == 2500
    assert enqueue_many("plain", []) == []


def test_enqueue__transaction_rolls_back__nothing_was_there(sent: list[Wakeup]) -> None:
    queues.find("here")
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        enqueue_many("plain", [{}, LARGE], unique=Unique(lambda payload: str(len(payload))))
        raise ZeroDivisionError
    assert (stored(), Blob.objects.count(), JobEvent.objects.count(), sent) == (0, 0, 0, [])


def test_enqueue__inside_a_request__carries_its_id() -> None:
    with request_id.bound("from-the-door"):
        assert enqueue("plain", {}).request_id == "from-the-door"
        assert enqueue("plain", {}, request_id="own").request_id == "own"


# --- unique ----------------------------------------------------------------------------------------------------------
def test_unique__key_is_held__same_job_until_it_is_over(worker: Worker, sent: list[Wakeup]) -> None:
    first = enqueue("plain", {"n": 1}, unique="report")
    assert not first.is_duplicate
    second = enqueue("other", {"n": 2}, unique="report")
    assert (second.id, second.is_duplicate, second.name, second.payload) == (
        first.id,
        True,
        "plain",
        {"n": 1},
    )
    run = start(worker, first)
    assert enqueue("plain", {}, unique="report").is_duplicate
    end(worker, run, State.FAILED)
    assert enqueue("plain", {}, unique="report").is_duplicate
    assert enqueue("plain", {}, unique="Report").id != first.id
    end(worker, start(worker, first))
    again = enqueue("plain", {}, unique="report")
    assert (again.is_duplicate, stored()) == (False, 3)
    assert len(sent) == 3
    assert JobEvent.objects.filter(state="PENDING").count() == 3


def test_unique__for_s__none_again_within_the_window_over_or_not(worker: Worker) -> None:
    first = enqueue("plain", {}, unique=Unique("digest", for_s=60))
    end(worker, start(worker, first))
    assert enqueue("plain", {}, unique=Unique("digest", for_s=60)).id == first.id
    assert enqueue("plain", {}, unique="digest").id == first.id
    retention.prune_jobs("here", State.COMPLETED, -60)
    assert stored() == 1  # the row keeps the window
    Job.objects.update(unique_until=timezone.now() - timedelta(seconds=1))
    again = enqueue("plain", {}, unique=Unique("digest", for_s=60))
    assert not again.is_duplicate
    assert enqueue("plain", {}, unique=Unique("digest", for_s=60)).id == again.id
    Job.objects.filter(id=again.id).update(unique_until=timezone.now() - timedelta(seconds=1))
    assert not enqueue("plain", {}, unique=Unique("digest", for_s=60)).is_duplicate  # it waits still


def test_unique__debounce__waiting_job_moves_on_with_the_new_payload(worker: Worker) -> None:
    debounced = Unique("index", debounce_s=30)
    first = enqueue("plain", {"n": 1}, unique=debounced)
    assert 5 < (first.run_after - timezone.now()).total_seconds() < 31  # by the database's clock
    Job.objects.update(run_after=timezone.now())
    second = enqueue("plain", LARGE, unique=debounced)
    assert (second.id, second.is_duplicate, second.payload) == (first.id, True, LARGE)
    row = Job.objects.get()
    assert (row.payload, offload.shown(row)) == (None, LARGE)
    assert 5 < (row.run_after - timezone.now()).total_seconds() < 31
    third = enqueue("plain", {"n": 3}, unique=debounced)
    assert (Job.objects.get().payload, third.id, Blob.objects.count()) == ({"n": 3}, first.id, 0)
    Job.objects.update(run_after=None)
    run = start(worker, first)
    newer = enqueue("plain", {"n": 4}, unique=debounced)  # what is new must not get lost behind the old
    assert (newer.is_duplicate, run.payload) == (False, {"n": 3})
    end(worker, run)
    assert enqueue("plain", {"n": 5}, unique=debounced).id == newer.id


def test_unique__many_with_a_key_each__duplicates_get_their_holders(sent: list[Wakeup]) -> None:
    held = enqueue("plain", {"id": 2}, unique="user:2")
    by_user = Unique(lambda payload: f"user:{payload['id']}")
    jobs = enqueue_many("plain", [{"id": id, "n": n} for n, id in enumerate([3, 2, 1, 3])], unique=by_user)
    assert [job.is_duplicate for job in jobs] == [False, True, False, True]
    assert jobs[1].id == held.id
    assert jobs[3].id == jobs[0].id
    assert Job.objects.get(unique_key="user:3").payload == {"id": 3, "n": 0}
    assert {message.id for message in sent} == {held.id, jobs[0].id, jobs[2].id}
    late = enqueue_many("plain", [{"n": 1}, {"n": 2}], unique=Unique("burst", debounce_s=5))
    assert late[0].id == late[1].id
    assert Job.objects.get(unique_key="burst").payload == {"n": 2}


def test_unique__inside_a_transaction__goes_on_after_a_duplicate() -> None:
    with transaction.atomic():
        first = enqueue("plain", {}, unique="key")
        assert enqueue("plain", {}, unique="key").id == first.id
        enqueue("plain", {})
    assert stored() == 2


@pytest.mark.parametrize("terms", [Unique("key"), Unique("key", for_s=60), Unique("key", debounce_s=60)])
def test_unique__eight_callers_at_once__one_job(terms: Unique) -> None:
    queues.find("here")
    jobs = in_threads(8, lambda: [enqueue("plain", {}, unique=terms) for _ in range(5)])
    assert len(jobs) == 8
    assert len({job.id for batch in jobs for job in batch}) == 1
    assert sum(not job.is_duplicate for batch in jobs for job in batch) == 1
    assert stored() == 1


def test_unique__batches_with_the_same_keys_in_other_orders__no_deadlock() -> None:
    queues.find("here")
    numbers = iter(range(6))

    def many() -> list[Job]:
        order = [1, -1][next(numbers) % 2]
        return enqueue_many(
            "plain", [{"n": n} for n in range(30)][::order], unique=Unique(lambda p: f"n{p['n']}")
        )

    assert [len(jobs) for jobs in in_threads(6, many)] == [30] * 6
    assert stored() == 30


# --- payloads --------------------------------------------------------------------------------------------------------
def test_large_payload__row_stays_small__handler_and_pages_see_it_whole(worker: Worker) -> None:
    small, large = enqueue_many("plain", [{"n": 1}, LARGE])
    assert (large.payload, Job.objects.get(id=large.id).payload) == (LARGE, None)
    assert Blob.objects.get().size_bytes == len('{"text":""}') + 80_000
    assert len(Blob.objects.get().body) < 1000
    run = start(worker, large)
    assert run.payload is None
    registry.find("plain").perform(run)
    assert seen == [LARGE]
    assert offload.shown(Job.objects.get(id=large.id)) == LARGE
    assert offload.shown(Job.objects.get(id=small.id)) == {"n": 1}
    end(worker, run)
    retention.prune_jobs("here", State.COMPLETED, -60)
    assert (stored(), Blob.objects.count()) == (1, 0)


def test_large_payload__blob_is_gone__the_run_fails_and_says_so(worker: Worker) -> None:
    job = enqueue("plain", LARGE)
    Blob.objects.all().delete()
    with pytest.raises(offload.PayloadLost, match="no blob"):
        registry.find("plain").perform(start(worker, job))
    assert offload.shown(Job.objects.get()) is None


def test_large_payload__job_is_deleted__blob_goes_too() -> None:
    enqueue("plain", LARGE)
    Job.objects.all().delete()
    assert Blob.objects.count() == 0


def test_secret_field__stored_sealed__opened_for_the_handler_alone(worker: Worker, settings: Any) -> None:
    payload = {"card": {"number": "4111 1111", "name": "Ada"}}
    job = enqueue("secret", payload)
    row = Job.objects.get()
    for found in (job, row):
        assert "4111" not in str(found.payload)
        assert offload.shown(found) == {"card": {"number": "••••••", "name": "Ada"}}
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "a-new-one"
    registry.find("secret").perform(start(worker, row))
    assert seen == [payload]


# --- lineage ---------------------------------------------------------------------------------------------------------
def test_parent__enqueued_by_a_handler__is_the_running_job(worker: Worker) -> None:
    task(name="breeder", queue="here")(lambda payload: seen.append(enqueue("plain", {})))
    job = enqueue("breeder", {})
    registry.find("breeder").perform(start(worker, job))
    assert (job.parent, seen[0].parent, Job.objects.get(id=seen[0].id).parent) == (None, job.id, job.id)
    assert enqueue("plain", {}).parent is None
    assert enqueue("plain", {}, parent=seen[0]).parent == seen[0].id


def test_parent__cyclic_or_unknown__is_refused() -> None:
    first, second = enqueue_many("plain", [{}, {}])
    Job.objects.filter(id=first.id).update(parent=second.id)
    Job.objects.filter(id=second.id).update(parent=first.id)
    for parent, said in (
        (first, "cyclic"),
        (second.id, "cyclic"),
        (uuid4(), "no job has"),
        ("x", "not a str"),
    ):
        with pytest.raises(lineage.BadParent, match=said):
            enqueue("plain", {}, parent=parent)  # type: ignore[arg-type]
    assert stored() == 2


# --- bad input -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("target", "payload", "options", "said"),
    [
        ("plan", {}, {}, "did you mean 'plain'"),
        ("nothing like it", {}, {}, "no task or queue"),
        (42, {}, {}, "a int is no task"),
        ("plain", {}, {"queue": "hree"}, "did you mean 'here'"),
        ("plain", [1], {}, "a payload is a dict"),
        ("plain", {"x": object()}, {}, "not JSON"),
        ("plain", {"x": {1, 2}}, {}, "not JSON"),
        ("plain", {"x": "y" * 5000}, {}, "at most 4,096"),
        ("secret", {"card": {"number": float("nan")}}, {}, "not JSON"),
        ("plain", {}, {"priority": 10}, "from 0 to 9"),
        ("plain", {}, {"priority": "HIGH"}, "from 0 to 9"),
        ("plain", {}, {"delay": -1}, "delay = -1 is not between 0 and ten years"),
        ("plain", {}, {"delay": timedelta(seconds=-1)}, "delay"),
        ("plain", {}, {"delay": "5"}, "delay = '5' is not a number"),
        ("plain", {}, {"delay": float("nan")}, "delay"),
        ("plain", {}, {"delay": 1, "run_at": timezone.now()}, "not two of them"),
        ("plain", {}, {"delay": 1, "unique": Unique("a", debounce_s=1)}, "not two of them"),
        ("plain", {}, {"run_at": timezone.now().replace(tzinfo=None)}, "time zone"),
        ("plain", {}, {"run_at": "tomorrow"}, "run_at"),
        ("plain", {}, {"expires": 0}, "over before it starts"),
        ("plain", {}, {"expires": -5}, "expires"),
        ("plain", {}, {"max_retries": 101}, "max_retries"),
        ("plain", {}, {"max_retries": True}, "max_retries"),
        ("plain", {}, {"tenant": "x" * 65}, "tenant"),
        ("plain", {}, {"tenant": "caf\udce9"}, "tenant"),
        ("plain", {}, {"tags": ["caf\udce9"]}, "tag"),
        ("plain", {}, {"request_id": "x" * 129}, "request_id"),
        ("plain", {}, {"unique": ""}, "a key"),
        ("plain", {}, {"unique": "caf\udce9"}, "a key"),
        ("plain", {}, {"unique": Unique("a", for_s=0)}, "for_s"),
        ("plain", {}, {"delay_s": 5}, "did you mean 'delay'"),
        ("plain", {}, {"prioritty": 5}, "did you mean 'priority'"),
    ],
)
def test_enqueue__bad_input__clear_error_and_nothing_stored(
    target: Any, payload: Any, options: dict[str, Any], said: str, settings: Any, sent: list[Wakeup]
) -> None:
    settings.BRAIN = settings.BRAIN | {"QUEUE": {"MAX_PAYLOAD_BYTES": 4096}}
    with pytest.raises(ValueError, match=said):
        enqueue_many(target, [{}, payload, {}], **options)
    assert (stored(), Blob.objects.count(), sent) == (0, 0, [])


def test_enqueue__unknown_option__is_a_type_error_too() -> None:
    with pytest.raises(TypeError):
        enqueue("plain", {}, speed=9)  # type: ignore[call-arg]


def test_enqueue__database_refuses__its_error_and_nothing_half_done(
    monkeypatch: pytest.MonkeyPatch, sent: list[Wakeup]
) -> None:
    queues.find("here")

    def broken(texts: Any) -> None:
        list(texts)
        connection.cursor().execute("SELECT no_such_function_here()")

    monkeypatch.setattr(offload, "store", broken)
    with pytest.raises(DatabaseError):
        enqueue_many("plain", [{}, LARGE])
    assert (stored(), JobEvent.objects.count(), sent) == (0, 0, [])


def test_enqueue__without_its_database__is_the_databases_error(monkeypatch: pytest.MonkeyPatch) -> None:
    queues.find("here")
    broken = connection.copy()
    monkeypatch.setitem(broken.settings_dict, "NAME", "/nowhere/at/all")
    monkeypatch.setitem(broken.settings_dict, "OPTIONS", {})  # PostgreSQL's pool has its connections already
    monkeypatch.setattr(intake.transaction, "on_commit", lambda *a, **k: pytest.fail("nothing was stored"))
    before = connections["default"]
    connections["default"] = broken
    try:
        with pytest.raises(DatabaseError):
            enqueue("plain", {})
    finally:
        connections["default"] = before


def in_threads(count: int, act: Callable[[], Any]) -> list[Any]:
    start_line, got = threading.Barrier(count), []

    def reach() -> None:
        try:
            start_line.wait(60)
            got.append(act())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=reach) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return got
