"""Celery on our transport, in processes of their own: tasks, chords, remote control, shutdown, kill -9."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chord

from queue_app.transport import transport_url
from tests import servers

from . import celery_app
from .conftest import Server, Worker, stock_url, until

pytestmark = pytest.mark.slow

Start = Callable[..., Worker]
THREADS, PREFORK = ("-P", "threads", "-c", "4"), ("-P", "prefork", "-c", "2")
POOLS = pytest.mark.parametrize("pool", [THREADS, PREFORK], ids=["threads", "prefork"])


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """A server of this module's own, so that its workers see no other queues."""
    with servers.valkey(port=servers.free_port()) as url:
        yield url


@pytest.fixture(scope="module")
def client(broker: str) -> Iterator[Any]:
    """The app in this process."""
    app = celery_app.app
    app.conf.update(broker_url=transport_url(broker), result_backend=broker)
    yield app
    app.close()


@pytest.fixture
def at(broker: str, client: Any) -> Iterator[Server]:
    """The server, empty."""
    server = Server(broker, "")
    server.redis.flushall()
    yield server
    server.redis.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "traces"
    path.touch()
    return path


def traced(file: Path) -> list[str]:
    return file.read_text().split()


def enqueue(file: Path, numbers: range, nap_s: float = 0, **options: Any) -> None:
    with celery_app.app.producer_pool.acquire(block=True) as producer, producer.batch(max_size=500):
        for number in numbers:
            celery_app.trace.apply_async(
                (str(file), number, nap_s), producer=producer, retry=False, **options
            )


def idle(at: Server, queue: str = "celery") -> bool:
    return not at.redis.llen(queue) and not at.redis.hlen("unacked")


def test_worker__remote_control_chord_and_queues__work(
    start_worker: Start, client: Any, at: Server, broker: str
) -> None:
    worker = start_worker(*PREFORK, broker=transport_url(broker), BACKEND=broker)
    name = until(lambda: client.control.ping(timeout=0.5), "the worker answers")[0].popitem()[0]
    assert client.control.inspect(timeout=30, limit=1).active() == {name: []}
    assert client.control.inspect(destination=["nobody@test"], timeout=0.5).ping() is None
    result = chord([celery_app.add.s(number, number) for number in range(20)])(celery_app.total.s())
    assert result.get(timeout=60) == 380
    asked: dict[str, Any] = {"destination": [name], "reply": True, "timeout": 30}
    assert client.control.add_consumer("extra", **asked)[0][name]["ok"]
    assert celery_app.add.apply_async((1, 2), queue="extra").get(timeout=60) == 3
    assert client.control.cancel_consumer("extra", **asked)[0][name]["ok"]
    left = celery_app.add.apply_async((1, 2), queue="extra")
    assert celery_app.add.delay(3, 4).get(timeout=60) == 7
    assert not left.ready()
    assert worker.stop() == 0


def test_worker__revoke_and_events__work(
    start_worker: Start, client: Any, at: Server, broker: str, file: Path
) -> None:
    start_worker(*THREADS, "-E", broker=transport_url(broker))
    until(lambda: client.control.ping(timeout=0.5), "the worker answers")
    assert client.control.revoke("unwanted", reply=True, timeout=30, limit=1)
    seen: set[tuple[str, str]] = set()

    def note(event: dict[str, Any]) -> None:
        seen.add((event["type"], event.get("uuid", "")))
        if event["type"] == "worker-heartbeat":  # so the subscription stands
            celery_app.trace.apply_async((str(file), 1), task_id="unwanted")
            celery_app.trace.apply_async((str(file), 2), task_id="wanted")

    with client.connection_for_read() as connection:
        receiver = client.events.Receiver(connection, handlers={"*": note})
        expected = {("task-succeeded", "wanted"), ("task-revoked", "unwanted")}
        with contextlib.closing(receiver.itercapture(limit=None, timeout=60, wakeup=False)) as events:
            while not expected <= seen:
                next(events)
    assert set(traced(file)) == {"2"}


@POOLS
def test_warm_shutdown__prefetched_tasks__go_back_at_once_and_in_order(
    start_worker: Start, client: Any, at: Server, broker: str, file: Path, pool: tuple[str, ...]
) -> None:
    worker = start_worker(*pool, broker=transport_url(broker), PREFETCH="4")
    enqueue(file, range(60), nap_s=0.05)
    until(lambda: len(traced(file)) > 12, "it is busy")
    assert worker.stop() == 0
    assert at.unacked() == set()
    ran = {int(number) for number in traced(file)}
    assert len(ran) == len(traced(file))  # nothing twice
    left = len(at.bodies("celery"))
    # A child's last result may come when stock Celery reads none any more: its task is given back as well, and runs again.
    assert 60 - len(ran) <= left <= 60 - len(ran) + (2 if "prefork" in pool else 0)
    assert at.tokens("celery") == 1
    start_worker("-P", "solo", broker=transport_url(broker))
    until(lambda: idle(at), "the rest runs")
    rest = [int(number) for number in traced(file)[len(ran) :]]
    assert rest == sorted(rest)
    assert (len(rest), set(rest) | ran) == (left, set(range(60)))


def test_cold_shutdown__running_and_prefetched_tasks__go_back(
    start_worker: Start, client: Any, at: Server, broker: str, file: Path
) -> None:
    worker = start_worker(*PREFORK, broker=transport_url(broker))
    enqueue(file, range(10), nap_s=30)
    until(lambda: len(traced(file)) == 2, "it is busy")
    # Stock Celery gives back in its signal handler, wherever the main thread is: not in a command to the broker.
    until(lambda: client.control.ping(timeout=0.5), "its loop has handed out what it got")
    worker.stop(signal.SIGQUIT)
    assert at.unacked() == set()
    assert len(at.bodies("celery")) == 10


def test_disabled_prefetch__worker__holds_no_more_than_it_runs(
    start_worker: Start, client: Any, at: Server, broker: str, file: Path
) -> None:
    start_worker("-P", "prefork", "-c", "2", broker=transport_url(broker), ONE_BY_ONE="1")
    enqueue(file, range(30), nap_s=0.05)
    seen: list[int] = []
    until(lambda: seen.append(at.redis.hlen("unacked")) or idle(at), "all run")
    assert max(seen) <= 4  # the two that run, and two whose acks are on their way; the window is 16
    assert len(traced(file)) == 30


def test_long_task__longer_than_the_visibility_timeout__runs_once(
    start_worker: Start, client: Any, at: Server, broker: str, file: Path
) -> None:
    for pool in (THREADS, PREFORK):
        start_worker(*pool, broker=transport_url(broker), VISIBILITY_S="4")
    enqueue(file, range(2), nap_s=6)
    until(lambda: len(traced(file)) >= 2 and idle(at), "both run")
    assert sorted(traced(file)) == ["0", "1"]


@pytest.mark.drilled("kill9-threads-broker, kill9-prefork-broker")
@POOLS
def test_kill_9__busy_workers__lose_nothing(
    start_worker: Start, client: Any, at: Server, broker: str, file: Path, pool: tuple[str, ...]
) -> None:
    """After each kill every message is in exactly one of: done, a list, unacked (or done and not yet forgotten)."""
    count, kills, dice = 1500, 3, random.Random(9)
    enqueue(file, range(count))
    everything = {_number(raw) for raw in at.bodies("celery")}
    assert everything == set(range(count))
    for _ in range(kills):
        worker = start_worker(*pool, broker=transport_url(broker), ready=False)
        size = file.stat().st_size
        until(lambda size=size: file.stat().st_size > size + 100, "it is busy")
        time.sleep(dice.uniform(0, 0.05))
        worker.kill()
        waiting = [_number(raw) for raw in at.bodies("celery")]
        held = [_number(entry[0]) for entry in map(_entry, at.redis.hvals("unacked"))]
        at.unacked()
        assert len(waiting) == len(set(waiting))
        assert not set(waiting) & set(held)
        assert set(waiting) | set(held) | {int(number) for number in traced(file)} == everything
    start_worker(*pool, broker=transport_url(broker), VISIBILITY_S="1")
    until(lambda: idle(at), "what the killed held comes back")
    assert {int(number) for number in traced(file)} == everything


def _entry(raw: bytes) -> list[Any]:
    return list(json.loads(raw))


def _number(envelope: Any) -> int:
    if isinstance(envelope, bytes):
        envelope = json.loads(envelope)
    return int(json.loads(base64.b64decode(envelope["body"]))[0][1])


def test_stock_and_our_workers__one_queue__share_it(
    start_worker: Start, client: Any, at: Server, broker: str, file: Path
) -> None:
    start_worker("-P", "threads", "-c", "2", broker=transport_url(broker))
    start_worker("-P", "threads", "-c", "2", broker=stock_url(broker))
    enqueue(file, range(200), nap_s=0.02)
    until(lambda: idle(at), "all run")
    assert Counter(traced(file)) == Counter(str(number) for number in range(200))
