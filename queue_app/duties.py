"""The Celery bootsteps of a worker: its row and lease, the reconciler, and the queues it consumes.

Everything here runs in the worker's main process, on threads with database connections of their own; the pool's children
inherit the worker's id and nothing else.
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
from celery.worker import state as celery_state
from django.db import DatabaseError, connections

from . import queues, reconciler, wakeup, workers
from .conf import conf

log = structlog.get_logger(__name__)

_JOIN_S = 5.0


class Duty(threading.Thread):
    """Does `action` every `interval_s` seconds until it is stopped, whatever goes wrong in between."""

    def __init__(self, name: str, action: Callable[[], None], interval_s: float) -> None:
        super().__init__(name=f"queue-{name}", daemon=True)
        self._action, self._interval_s = action, interval_s
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            try:
                self._action()
            except Exception as error:  # noqa: BLE001  (a database or broker that is down comes back)
                log.warning(
                    "duty_failed", duty=self.name, error=type(error).__name__, reason=str(error)[:200]
                )
            finally:
                connections.close_all()

    def stop(self) -> None:
        self._stopping.set()
        if self.is_alive():
            self.join(_JOIN_S)


class Membership(bootsteps.StartStopStep):
    """The worker's row, heartbeat and reconciler.

    They end on `worker_shutdown` and not with this step: Celery stops steps before the pool has drained, and a running
    job needs the lease until it has ended. After kill -9 or a cold shutdown the lease runs out.
    """

    # Started after the pool has forked: threads and locks stay in the parent.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._id = workers.announce()  # before the fork, for the children
        self._duties: list[Duty] = []

    def start(self, worker: Any) -> None:
        try:
            self._enter(worker)
        except DatabaseError as error:
            log.critical("worker_not_started", reason=str(error).strip(), hint="run `manage.py migrate`")
            raise WorkerShutdown(1) from error
        finally:
            connections.close_all()  # the pool may fork again later
        self._last_beat = time.monotonic()
        self._duties = [
            Duty("heartbeat", partial(self._beat, worker), conf().LEASE_S / 3),
            Duty("reconciler", partial(reconciler.reconcile, self._id, running), conf().RECONCILE_S),
        ]
        for duty in self._duties:
            duty.start()
        signals.worker_shutdown.connect(self._leave, sender=worker, weak=False)

    def _enter(self, worker: Any) -> None:
        for name in queues.declared():
            queues.find(name)
        if not getattr(worker, "given_queues", None):
            for name in queues.consumable():
                worker.app.amqp.queues.select_add(name)
        self._register(worker)

    def _register(self, worker: Any) -> None:
        pool = worker.pool_cls.__module__.rpartition(".")[2]
        workers.register(self._id, pool=pool, concurrency=worker.concurrency, queues=_consumed(worker.app))

    def _beat(self, worker: Any) -> None:
        if not workers.beat(self._id, _consumed(worker.app)):
            self._register(worker)
        silent_s, self._last_beat = time.monotonic() - self._last_beat, time.monotonic()
        if silent_s > conf().LEASE_S:
            log.warning("lease_lapsed", worker=str(self._id), silent_s=round(silent_s, 1))

    def _leave(self, **_: Any) -> None:
        for duty in self._duties:
            duty.stop()
        workers.leave(self._id)
        connections.close_all()


class QueueFollower(bootsteps.StartStopStep):
    """Takes up new and resumed queues and puts paused ones down, in the consumer's own loop."""

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
        paused = queues.paused()
        wanted = (getattr(consumer.controller, "given_queues", None) or queues.consumable()) - paused
        consumed = set(_consumed(consumer.app))
        if wanted - consumed or paused & consumed:
            consumer.call_soon(_follow, consumer, wanted, paused)


def running() -> set[UUID]:
    """The ids of the jobs that this worker's pool has or is about to get."""
    while True:
        try:
            requests = [*celery_state.reserved_requests, *celery_state.active_requests]
        except RuntimeError:  # the consumer's thread added one meanwhile
            continue
        return {UUID(request.id) for request in requests if request.name == wakeup.RUN}


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
