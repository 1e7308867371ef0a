"""Who gets plain Celery tasks that wait behind long ones: what a worker holds ahead, and what `--disable-prefetch` makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kombu import Connection

from queue_app.models import Job
from tests.queue_app.conftest import until

from .conftest import WorkerProcess, call, ended

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

Start = Callable[..., WorkerProcess]
THREADS, PREFORK = ("-P", "threads", "-c", "2"), ("-P", "prefork", "-c", "2")


@pytest.fixture
def broker(rabbitmq_url: str) -> Iterator[str]:
    """Its URL; the queues of the test are gone afterwards."""
    yield rabbitmq_url
    with Connection(rabbitmq_url) as connection:
        for suffix in ("", ".critical", ".high", ".low", ".dead"):
            connection.channel().queue_delete(f"default{suffix}")


def busy(
    start: Start, folder: Path, *arguments: str, **env: str
) -> tuple[list[str], list[str], Path, WorkerProcess]:
    """A worker that knows short tasks, with two that do not end in its slots and ten behind them: ids of both, the gate."""
    gate, file = folder / "gate", folder / "notes"
    worker = start(*arguments, "-n", "busy@%h", **env)
    for id in call("answer = [tasks.add.delay(1, 1).id for _ in range(100)]", **env):
        ended(id, "COMPLETED")
    waiting = f"tasks.wait_for.delay({str(gate)!r}, {str(file)!r}, 'long').id"
    long = call(f"answer = [{waiting} for _ in range(2)]", **env)
    for id in long:
        ended(id, "PROCESSING")
    behind = call(f"answer = [tasks.note.delay({str(file)!r}, n).id for n in range(10)]", **env)
    return long, behind, gate, worker


def completed(ids: list[str]) -> int:
    return Job.objects.filter(id__in=ids, state="COMPLETED").count()


def handed_on(start: Start, folder: Path, *arguments: str, **env: str) -> None:
    long, behind, gate, _ = busy(start, folder, *arguments, **env)
    start(*arguments, "-n", "idle@%h", **env)
    until(lambda: completed(behind) == len(behind), "the idle worker has run what waited")
    assert completed(long) == 0
    gate.touch()
    until(lambda: completed(long) == len(long), "the long ones end")


@pytest.mark.parametrize("pool", [THREADS, PREFORK], ids=["threads", "prefork"])
def test_held_up__redis__what_waits_behind_long_tasks_goes_to_the_idle_worker_once(
    start: Start, tmp_path: Path, pool: tuple[str, ...]
) -> None:
    handed_on(start, tmp_path, *pool)
    assert sorted(map(int, (tmp_path / "notes").read_text().replace("long", "").split())) == [*range(10)]


@pytest.mark.parametrize("pool", [THREADS, PREFORK], ids=["threads", "prefork"])
def test_stop__redis_and_long_tasks_run__what_waits_behind_them_goes_to_another_worker_at_once(
    start: Start, tmp_path: Path, pool: tuple[str, ...]
) -> None:
    stopped(start, tmp_path, *pool)


@pytest.mark.service
@pytest.mark.parametrize("pool", [THREADS, PREFORK], ids=["threads", "prefork"])
def test_stop__rabbitmq_and_long_tasks_run__what_waits_behind_them_goes_to_another_worker_at_once(
    start: Start, tmp_path: Path, broker: str, pool: tuple[str, ...]
) -> None:
    stopped(start, tmp_path, *pool, BROKER_URL=broker)


def stopped(start: Start, folder: Path, *arguments: str, **env: str) -> None:
    env["TEST_QUEUE_CONF"] = '{"WARM_STOP_S": 600}'
    long, behind, gate, stopping = busy(start, folder, *arguments, **env)
    start(*arguments, "-n", "idle@%h", **env)
    stopping.process.terminate()
    until(lambda: completed(behind) == len(behind), "the other worker has run what waited")
    assert stopping.process.poll() is None
    assert completed(long) == 0
    gate.touch()
    until(lambda: completed(long) == len(long), "the long ones end")
    assert Job.objects.filter(id__in=[*long, *behind], attempt=1).count() == 12


@pytest.mark.parametrize("pool", [THREADS, PREFORK], ids=["threads", "prefork"])
def test_disable_prefetch__redis__what_is_behind_long_tasks_goes_to_the_idle_worker(
    start: Start, tmp_path: Path, pool: tuple[str, ...]
) -> None:
    handed_on(start, tmp_path, *pool, "--disable-prefetch")


@pytest.mark.service
@pytest.mark.parametrize("pool", [THREADS, PREFORK], ids=["threads", "prefork"])
def test_disable_prefetch__rabbitmq__what_is_behind_long_tasks_goes_to_the_idle_worker(
    start: Start, tmp_path: Path, broker: str, pool: tuple[str, ...]
) -> None:
    handed_on(start, tmp_path, *pool, "--disable-prefetch", BROKER_URL=broker)
