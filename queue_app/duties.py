"""The Celery bootsteps of a worker: its row and lease, the engine, the reconciler, and the queues it consumes.

Everything here runs in the worker's main process, on threads with database connections of their own. A prefork pool has
forked before any of them exists, and a child that is forked later uses none of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from celery import bootsteps, signals
from celery.exceptions import WorkerShutdown
from django.db import DatabaseError, connections

from . import queues, reconciler, recording, strategy, workers
from .conf import conf
from .engine import Engine
from .recorder import Recorder
from .runner import ForkRunner, ThreadRunner, own_threads

log = structlog.get_logger(__name__)

_JOIN_S = 5.0
_CONNECTION_AGE_S = 60


class Duty(threading.Thread):
    """Does `action` every `interval_s` seconds until it is stopped, whatever goes wrong in between."""

    def __init__(self, name: str, action: Callable[[], None], interval_s: float) -> None:
        super().__init__(name=f"queue-{name}", daemon=True)
        self._action, self._interval_s = action, interval_s
        self._stopping = threading.Event()

    def run(self) -> None:
        try:
            while not self._stopping.wait(self._interval_s):
                self._do()
        finally:
            connections.close_all()

    def _do(self) -> None:
        try:
            self._action()
        except Exception as error:  # noqa: BLE001  (a database or broker that is down comes back)
            log.warning("duty_failed", duty=self.name, error=type(error).__name__, reason=str(error)[:200])
            connections.close_all()

    def stop(self) -> None:
        self._stopping.set()
        if self.is_alive():
            self.join(_JOIN_S)


class Membership(bootsteps.StartStopStep):
    """The worker's row, heartbeat, engine and reconciler.

    They end on `worker_shutdown` and not with this step: Celery stops steps before the pool has drained, and a running
    job needs the lease until it has ended. After kill -9 or a cold shutdown the lease runs out.
    """

    # Started after the pool has forked: threads and locks stay in the parent.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        keep_connections()  # before the fork, for the children
        self._duties: list[Duty] = []
        self._engine: Engine | None = None

    def start(self, worker: Any) -> None:
        try:
            self._enter(worker)
        except DatabaseError as error:
            log.critical("worker_not_started", reason=str(error).strip(), hint="run `manage.py migrate`")
            raise WorkerShutdown(1) from error
        finally:
            connections.close_all()  # the pool may fork again later
        for duty in self._duties:
            duty.start()
        signals.worker_shutting_down.connect(self._close, weak=False)
        signals.worker_shutdown.connect(self._leave, sender=worker, weak=False)

    def _enter(self, worker: Any) -> None:
        for name in queues.declared():
            queues.find(name)
        if not getattr(worker, "given_queues", None):
            for name in queues.consumable():
                worker.app.amqp.queues.select_add(name)
        began = time.monotonic()
        engine = Engine(
            self._register(worker),
            slots=worker.concurrency,
            lease_s=conf().LEASE_S,
            call_soon=lambda act, *arguments: worker.consumer.call_soon(act, *arguments),
        )
        engine.renewed(began)
        engine.runner = _runner(engine, worker)
        engine.start()
        strategy.serve(engine)
        self._engine = engine
        recording.serve(lambda: str(engine.worker_id))
        self._recorder = Recorder(lambda: engine.worker_id)
        self._duties = [
            Duty("heartbeat", partial(self._beat, worker, engine), conf().LEASE_S / 3),
            Duty("reconciler", reconciler.Reconciler(engine).look, conf().RECONCILE_S),
            Duty("recorder", self._recorder.look, 0),
        ]

    def _register(self, worker: Any) -> UUID:
        pool = worker.pool_cls.__module__.rpartition(".")[2]
        return workers.register(pool=pool, concurrency=worker.concurrency, queues=_consumed(worker.app)).id

    def _beat(self, worker: Any, engine: Engine) -> None:
        began, running = time.monotonic(), engine.running()
        if workers.beat(engine.worker_id, _consumed(worker.app), running):
            engine.renewed(began)
            if running:
                engine.runner.cancel(workers.cancelled(running))
            return
        old, new = engine.worker_id, self._register(worker)
        engine.replaced(new, began)
        log.warning("lease_lapsed", worker=str(old), now=str(new), running=len(running))

    def _close(self, **_: Any) -> None:
        if self._engine is not None:
            self._engine.close()

    def _leave(self, **_: Any) -> None:
        engine = self._engine
        if engine is None:
            return
        engine.stop(timeout_s=conf().LEASE_S)
        strategy.serve(None)
        for duty in self._duties:
            duty.stop()
        self._finish_recording()
        workers.leave(engine.worker_id)
        connections.close_all()

    def _finish_recording(self) -> None:
        try:
            self._recorder.stop()
        except Exception as error:  # noqa: BLE001  (another worker takes over when the lease ends)
            log.warning("recorder_not_finished", error=type(error).__name__)


class QueueFollower(bootsteps.StartStopStep):
    """Takes up new and resumed queues and puts paused ones down, in the consumer's own loop; fits the prefetch."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._duty: Duty | None = None

    def start(self, consumer: Any) -> None:  # again after every reconnection
        self._duty = Duty("queues", partial(self._look, consumer), conf().QUEUE_REFRESH_S)
        self._duty.start()

    def stop(self, consumer: Any) -> None:
        if self._duty is not None:
            self._duty.stop()

    def _look(self, consumer: Any) -> None:
        paused = {name for name, queue in queues.policies(fresh=True).items() if queue.paused}
        wanted = (getattr(consumer.controller, "given_queues", None) or queues.consumable()) - paused
        consumed = set(_consumed(consumer.app))
        if wanted - consumed or paused & consumed:
            consumer.call_soon(_follow, consumer, wanted, paused)


def keep_connections() -> None:
    """In a worker a connection belongs to a thread that lives as long as the process: kept for a while, and no pool.

    A pool's threads and sockets would not survive a fork, and there are never more threads than connections.
    """
    for alias in connections:
        entry = connections.settings[alias]
        entry["CONN_MAX_AGE"] = _CONNECTION_AGE_S
        entry["OPTIONS"].pop("pool", None)


def _runner(engine: Engine, worker: Any) -> ThreadRunner | ForkRunner:
    if worker.pool_cls.uses_semaphore:  # prefork
        return ForkRunner(
            engine, worker.pool, lambda act, *arguments: worker.consumer.call_soon(act, *arguments)
        )
    executor = getattr(worker.pool, "executor", None) or own_threads(worker.concurrency)
    return ThreadRunner(engine, executor, worker.concurrency)


def _follow(consumer: Any, wanted: set[str], paused: set[str]) -> None:
    if consumer.task_consumer is None:  # the connection is lost; the next one looks again
        return
    consumed = set(_consumed(consumer.app))
    for name in sorted(wanted - consumed):
        consumer.add_task_queue(name)
    for name in sorted(paused & consumed):
        consumer.cancel_task_queue(name)


def _consumed(app: Any) -> list[str]:
    return list(app.amqp.queues.consume_from)
