"""Real Celery workers in processes of their own, on this run's Valkey and on the test's own database."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import current_app
from django.conf import settings
from django.db import connection
from django.utils import timezone

from foundation.models import AuditEntry
from queue_app import policies, registry, task
from queue_app.models import Firing, Job, JobEvent, Lease, Queue, Schedule, Turns, Worker
from tests import warm
from tests.foundation.databases import default_database

ROOT = Path(__file__).resolve().parents[2]
CELERY = ["-m", "celery", "-A", "brain_project", "worker", "--without-mingle", "--without-gossip"]
TIMEOUT_S = 60.0  # of what comes at once: a machine under load may stand still for seconds
POOLS = {"threads": ("-P", "threads", "-c", "2"), "prefork": ("-c", "2")}


class WorkerProcess:
    """A process in a session of its own, a worker mostly; `log` is what it has said."""

    def __init__(self, arguments: list[str], log: Path, env: dict[str, str]) -> None:
        self._log = log
        with log.open("wb") as out:
            self.process = warm.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=os.environ | env,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def events(self) -> set[str]:
        """The names of the structured lines."""
        return {line["event"] for line in self.lines()}

    def lines(self) -> list[dict[str, Any]]:
        """The structured ones that are written to their ends."""
        whole, _, _ = self.log.rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def signal(self, number: signal.Signals) -> None:
        """To the process group: with kill -9 nothing of the worker survives to clean up."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """kill -9 of the group, whatever state it is in."""
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self, timeout_s: float = TIMEOUT_S) -> int:
        """SIGTERM to the main process, as a supervisor sends it. Returns the exit code."""
        self.process.terminate()
        return self.process.wait(timeout_s)


def environment() -> dict[str, str]:
    return {
        "DJANGO_SETTINGS_MODULE": "tests.queue_app.worker_settings",
        "DATABASE_URL": _database_url(connection.settings_dict),
        "REDIS_URL": settings.REDIS_URL,
        "BRAIN_LOG_JSON": "1",
    }


def _database_url(settings_dict: dict[str, Any]) -> str:
    """Of the test's own database, as the workers are told of it."""
    if connection.vendor == "sqlite":
        return f"sqlite:///{settings_dict['NAME']}"
    return "postgres://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**settings_dict)


def until(condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s"
        time.sleep(0.05)
    return found


@pytest.fixture
def empty_valkey(valkey: str) -> None:
    """This run's own: a worker that was killed leaves messages and events, which the next test's workers would take."""
    with redis.Redis.from_url(valkey) as client:
        client.flushdb()


@pytest.fixture
def start_worker(
    tmp_path: Path, transactional_db: None, empty_valkey: None
) -> Iterator[Callable[..., WorkerProcess]]:
    """start_worker("-P", "threads") → a ready worker; gone when the test ends, whatever state it is in."""
    started: list[WorkerProcess] = []

    def start(*arguments: str, command: list[str] = CELERY) -> WorkerProcess:
        log = tmp_path / f"worker-{len(started)}.log"
        worker = WorkerProcess([*command, *arguments], log, environment())
        started.append(worker)
        until(lambda: "ready." in worker.log or worker.process.poll() is not None, "the worker is ready")
        assert worker.process.poll() is None, worker.log
        return worker

    yield start
    for worker in started:
        worker.kill()


@pytest.fixture
def worker_conf(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """worker_conf(LEASE_S=1.5): what the workers of this test have instead of worker_settings.py's."""

    def set_to(**conf: Any) -> None:
        monkeypatch.setenv("TEST_QUEUE_CONF", json.dumps(conf))

    return set_to


@pytest.fixture
def short_leases(worker_conf: Callable[..., None]) -> None:
    """For tests in which a worker dies. A worker that stands still for longer loses its lease, and its jobs run twice."""
    worker_conf(LEASE_S=1.5)


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The options of a worker with two slots, of each kind."""
    return POOLS[request.param]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where handlers leave their traces."""
    path = tmp_path / "traces"
    path.touch()
    return path


@pytest.fixture
def own_queue(prefix: str) -> Iterator[str]:
    """A queue of this test's own, declared by a task."""
    name = prefix.strip(":").replace(":", "-")
    registered = task(name=name, queue=name)(lambda payload: None)
    yield name
    del registry._tasks[registered.name]
    with current_app.connection_for_write() as broker:
        broker.default_channel.queue_delete(name)


@pytest.fixture(autouse=True)
def forget_queues() -> None:
    """Their rows went with the last test's transaction."""
    policies.forget()


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def _database(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_setup: None,  # first: made while another database is the default, it would be made there
    django_db_blocker: Any,
) -> Iterator[None]:
    """The module's tests on each database: a file or a private server, migrated, as Django's default one."""
    if request.param == "mariadb" and not importlib.util.find_spec("MySQLdb"):
        pytest.skip("mysqlclient is not installed")
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('ledger')}/db.sqlite3"
    else:
        url = request.getfixturevalue(f"{request.param}_url")
    with django_db_blocker.unblock(), default_database(url):
        yield


@pytest.fixture
def every_database(_database: None) -> Iterator[None]:
    """Committed rows, and none of them left for the next test."""
    yield
    for model in (Firing, Schedule, Lease, JobEvent, Job, Worker, Turns, Queue):
        model.objects.all().delete()
    AuditEntry.objects.expire(timezone.now())
