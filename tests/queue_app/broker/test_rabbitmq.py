"""Both deliveries on a RabbitMQ of our own: quorum queues, classes, dead letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kombu import Connection, Queue

from queue_app import queues
from queue_app.models import Job, Worker
from tests.queue_app.conftest import CELERY, TIMEOUT_S, until

from .conftest import WorkerProcess, call, ended, environment, history

pytestmark = [pytest.mark.slow, pytest.mark.service, pytest.mark.django_db(transaction=True)]

Start = Callable[..., WorkerProcess]
THREADS = ("-P", "threads", "-c", "2")


@pytest.fixture
def broker(rabbitmq_url: str) -> Iterator[str]:
    """Its URL; the queues of the test are gone afterwards."""
    yield rabbitmq_url
    with Connection(rabbitmq_url) as connection:
        for name in ("default", "traces", "narrow"):
            for suffix in ("", ".critical", ".high", ".low", ".dead"):
                connection.channel().queue_delete(f"{name}{suffix}")


def waiting(url: str, name: str) -> int:
    with Connection(url) as connection:
        return int(connection.channel().queue_declare(name, passive=True).message_count)


@pytest.mark.parametrize("pool", [THREADS, ("-c", "1")], ids=["threads", "prefork"])
def test_worker__each_kind_of_end__is_in_the_row(start: Start, broker: str, pool: tuple[str, ...]) -> None:
    ids = call(
        "answer = {'good': tasks.add.delay(1, b=2).id, 'bad': tasks.fail.delay().id,\n"
        "  'again': tasks.retry.delay(2).id, 'early': tasks.early.delay(5).id,\n"
        "  'rejected': tasks.reject.delay().id,\n"
        "  'late': tasks.add.apply_async((1, 1), countdown=2).id}",
        BROKER_URL=broker,
    )
    start(*pool, BROKER_URL=broker)
    good = ended(ids["good"], "COMPLETED")
    assert (good.name, good.queue, good.payload, good.result) == (
        "plain.add", "default", {"args": [1], "kwargs": {"b": 2}}, 3,
    )  # fmt: skip
    assert history(ids["good"]) == ["PENDING", "PROCESSING", "COMPLETED"]
    assert ended(ids["bad"], "DEAD_LETTER").last_error["type"] == "ConnectionError"
    assert ended(ids["again"], "COMPLETED").attempt == 2
    assert ended(ids["early"], "COMPLETED").result == 5
    assert ended(ids["rejected"], "DEAD_LETTER").last_error["type"] == "Reject"
    late = ended(ids["late"], "COMPLETED")
    assert (late.started_at - late.created_at).total_seconds() >= 1.9
    assert Worker.objects.get().queues == sorted({"default", *Worker.objects.get().queues})
    assert not any(name.endswith(".high") for name in Worker.objects.get().queues)


def test_classes__urgent_message_behind_a_backlog__is_run_within_what_is_prefetched(
    start: Start, broker: str, tmp_path: Path
) -> None:
    file = str(tmp_path / "order")
    call(
        f"for n in range(30): tasks.note.apply_async(({file!r}, n), priority=0)\n"
        f"tasks.note.apply_async(({file!r}, 'urgent'), priority=9)",
        BROKER_URL=broker,
    )
    assert (waiting(broker, "default.low"), waiting(broker, "default.critical")) == (30, 1)
    start("-P", "threads", "-c", "1", BROKER_URL=broker)
    until(lambda: Path(file).exists() and len(Path(file).read_text().split()) == 31, "all have run")
    assert Path(file).read_text().split().index("urgent") <= 4


def test_prefetch__tasks_get_long__follows_and_no_message_is_lost_or_doubled(
    start: Start, broker: str, tmp_path: Path
) -> None:
    """The consumers begin anew with each other prefetch, here in the middle of their work."""
    file = tmp_path / "notes"
    file.touch()

    def publish(numbers: range, takes_s: float) -> None:
        call(f"for n in {numbers}: tasks.note.delay({str(file)!r}, n, {takes_s})", BROKER_URL=broker)

    def done() -> list[int]:
        return [int(line) for line in file.read_text().split()]

    publish(range(600), 0)
    start(*THREADS, BROKER_URL=broker)
    until(lambda: len(done()) == 600, "the short ones have run")
    publish(range(600, 630), 0.7)  # published before the first of them has ended
    until(lambda: waiting(broker, "default") == 0, "the worker holds all that wait")
    assert len(done()) < 620
    until(lambda: len(done()) == 630, "the long ones have run")
    left = call(
        f"for n in range(630, 660): tasks.note.delay({str(file)!r}, n, 0.6)\n"
        "from queue_app import wakeup\n"
        "answer = wakeup.depth('default')",
        BROKER_URL=broker,
    )
    assert left > 15  # another worker could have them
    until(lambda: len(done()) == 660, "all have run")
    assert sorted(done()) == list(range(660))


def test_ledger__wake_ups_of_every_class__are_consumed(start: Start, broker: str, tmp_path: Path) -> None:
    start(*THREADS, BROKER_URL=broker)
    file = str(tmp_path / "traces")
    call(
        "from queue_app import enqueue\n"
        f"for p in (0, 3, 6, 9): enqueue('jobs.trace', {{'file': {file!r}, 'number': p}}, priority=p)",
        BROKER_URL=broker,
    )
    until(lambda: Job.objects.filter(state="COMPLETED").count() == 4, "all are run")
    assert sorted(Path(file).read_text().split()) == ["0", "3", "6", "9"]


def test_limits__jobs_of_every_class__get_their_turns_at_once(
    start: Start, broker: str, worker_conf: Callable[..., None], tmp_path: Path
) -> None:
    file = str(tmp_path / "traces")
    worker_conf(
        RECONCILE_S=60.0
    )  # nobody looks of himself: what starts sooner does because somebody was told
    queues.create_queue("traces")
    queues.configure("traces", is_fair=True, max_concurrency=1, actor=None, source="system")
    start(*THREADS, BROKER_URL=broker)
    for priority in (0, 9):
        call(
            "from queue_app import enqueue\n"
            f"enqueue('jobs.trace', {{'file': {file!r}, 'number': {priority}}}, priority={priority})",
            BROKER_URL=broker,
        )
    done = Job.objects.filter(state="COMPLETED", name="jobs.trace")
    until(lambda: done.count() == 2, "both have run", timeout_s=30)


def test_depth__messages_in_every_class__are_summed(broker: str, transactional_db: None) -> None:
    depth = call(
        "from queue_app import wakeup\n"
        "for p in (0, 3, 6, 9, 9): tasks.add.apply_async((1, 1), priority=p)\n"
        "answer = wakeup.depth('default'), wakeup.depth('never made')",
        BROKER_URL=broker,
    )
    assert depth == [5, 0]


def test_delivery_limit__job_kills_every_worker__is_a_dead_letter_and_the_rest_runs(
    start: Start, broker: str, tmp_path: Path
) -> None:
    file = str(tmp_path / "notes")
    ids = call(
        "answer = {'poison': tasks.kill_own_process.delay().id,\n"
        f"  'good': [tasks.note.delay({file!r}, n).id for n in range(3)]}}",
        BROKER_URL=broker,
    )

    def is_out() -> bool:
        return Job.objects.filter(id=ids["poison"], state="DEAD_LETTER").exists()

    arguments = [*CELERY, "-P", "threads", "-c", "1"]
    for number in range(12):  # each death is a delivery, and so is the one after it was sent back
        worker = WorkerProcess(arguments, tmp_path / f"log-{number}", environment(BROKER_URL=broker))
        try:
            until(
                lambda worker=worker: worker.process.poll() is not None or is_out(),
                "it dies, or the poison is out",
            )
            if is_out():
                for id in ids["good"]:
                    ended(id, "COMPLETED")
                break
        finally:
            worker.kill()
    poison = Job.objects.get(id=ids["poison"])
    assert (poison.name, poison.last_error["type"]) == ("plain.kill_own_process", "WorkerLost")
    assert "delivery_limit" in poison.last_error["message"]


def test_worker__queue_exists_with_other_arguments__says_so_and_exits(
    broker: str, transactional_db: None, tmp_path: Path
) -> None:
    with Connection(broker) as connection:
        Queue("default", queue_arguments={})(connection.channel()).declare()
    refused = WorkerProcess([*CELERY, *THREADS], tmp_path / "log", environment(BROKER_URL=broker))
    try:
        assert refused.process.wait(TIMEOUT_S) != 0
    finally:
        refused.kill()
    assert "worker_not_started" in refused.log
    assert "rabbitmqctl delete_queue default" in refused.log
