"""The Celery bootsteps of a worker: its row and lease, the engine, the reconciler, and the queues it consumes.

Everything here runs in the worker's main process, on threads with database connections of their own. A prefork pool has
forked before any of them exists, and a child that is forked later uses none of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from celery import bootsteps, signals
from celery.apps import worker as apps
from celery.exceptions import WorkerShutdown
from celery.worker import state
from django.db import DatabaseError, connections

from queue_app import alerting, firing, policies, queues, reconciler, wakeup, workers
from queue_app.broker import celery_task, recording, topology
from queue_app.broker.recorder import Recorder
from queue_app.broker.undelivered import Undelivered
from queue_app.conf import conf
from queue_app.duty import Duty
from queue_app.governor import Governor
from queue_app.states import Asked

from . import inspection, memory, prefetch, reception, strategy, thread_connections
from .engine import Engine
from .forks import ForkRunner
from .liveness import Liveness
from .returning import Returning, line_of
from .runner import ThreadRunner
from .slots import Slots, take_over
from .stopping import Ending, Stopping

log = structlog.get_logger(__name__)

_CHILDREN_S = 0.5  # between two looks whether a child of the pool has died
_LOOK_S = 1.0  # between two looks whether the worker makes progress


class Membership(bootsteps.StartStopStep):
    """The worker's row, heartbeat, engine, reconciler, scheduler and watch over itself.

    They end after the pool, and not with this step: a running job needs the lease until it has ended. After kill -9 the
    lease runs out.
    """

    # Started after the pool has forked: threads and locks stay in the parent.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        thread_connections.keep(worker.app)
        if isinstance(worker, apps.Worker):  # else it is a guest in the process, whose objects may have to go
            memory.keep_what_is_there()
        self._duties: list[Duty] = []
        self._engine: Engine | None = None
        self._stopping: Stopping | None = None

    def start(self, worker: Any) -> None:
        _refuse_greenlets(worker)
        _refuse_eager()
        ending = Ending(worker)
        try:
            self._enter(worker, ending)
        except DatabaseError as error:
            log.critical("worker_not_started", reason=str(error).strip(), hint="run `manage.py migrate`")
            raise WorkerShutdown(1) from error
        finally:
            connections.close_all()  # the pool may fork again later
        for duty in (self._heartbeat, *self._duties):
            duty.start()
        # Celery stops no step when it is told to end before all have started.
        signals.worker_shutdown.connect(lambda **_: self._leave(), sender=worker, weak=False)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Called by Celery at every (re)connection."""
        if worker.pool_cls.uses_semaphore:
            # Celery looks when a child's pipe closes. The kernel closes it before the child can be waited for, so the
            # look may come too early; the next one would be 5 s later.
            hub.call_repeatedly(_CHILDREN_S, worker.pool.maintain_pool)

    def close(self, worker: Any) -> None:
        """The first thing that Celery does to stop, in its main thread."""
        if self._stopping is not None:
            self._stopping.close()

    def terminate(self, worker: Any) -> None:
        if self._stopping is not None:
            self._stopping.end_at_once()

    def _enter(self, worker: Any, ending: Ending) -> None:
        for name in queues.declared():
            queues.find(name)
        policies.by_name(fresh=True)
        self._take_up(worker, getattr(worker, "given_queues", None) or queues.consumable())
        began = time.monotonic()
        engine = Engine(
            self._register(worker),
            slots=_slots(worker),
            lease_s=conf().LEASE_S,
            call_soon=lambda act, *arguments: worker.consumer.call_soon(act, *arguments),
        )
        engine.renewed(began)
        engine.window.is_shared = not policies.with_few_turns().isdisjoint(_consumed(worker.app))
        engine.runner = _runner(engine, worker)
        engine.start()
        strategy.serve(engine)
        recording.serve(lambda: str(engine.worker_id))
        self._engine = worker.queue_engine = engine
        inspection.install(engine)
        self._stopping = Stopping(worker, engine, ending, retire=self._retire, leave=self._leave)
        self._recorder = Recorder(lambda: engine.worker_id)
        governor = Governor(lambda: handing_out.hurry())
        handing_out = Duty("governor", governor.look, conf().RECONCILE_S)
        engine.on_turns = governor.ask
        self._reconciler = reconciler.Reconciler(engine, governor)
        self._scheduler = firing.Scheduler(lambda: engine.worker_id)
        self._watch = alerting.Watch(lambda: engine.worker_id)
        liveness = Liveness(engine, consumed=partial(_consumed, worker.app), end=self._stopping.fail)
        self._heartbeat = Duty("heartbeat", partial(self._beat, worker, engine), conf().LEASE_S / 3)
        self._duties = [
            handing_out,
            Duty("cancels", partial(_pass_on_cancels, engine), conf().RECONCILE_S),
            Duty("reconciler", self._reconciler.look, conf().RECONCILE_S),
            Duty("scheduler", self._scheduler.look, conf().RECONCILE_S),
            Duty("recorder", self._recorder.look, 0.5),
            Duty("undelivered", Undelivered(self._recorder).look, _LOOK_S),
            Duty("liveness", liveness.look, _LOOK_S),
            *self._watch.duties,
            Duty("recycling", self._stopping.recycle_when_stuck, _LOOK_S),
        ]

    def _take_up(self, worker: Any, names: Collection[str]) -> None:
        broker = worker.app.connection_for_write()
        driver = broker.transport.driver_type
        for name in sorted(names):
            for broker_queue in topology.consumed(name, driver):
                if broker_queue not in worker.app.amqp.queues.consume_from:
                    worker.app.amqp.queues.select_add(broker_queue)
        try:
            with broker:
                topology.declare(broker, names)
        except topology.OtherArguments as error:
            log.critical("worker_not_started", reason=str(error))
            raise WorkerShutdown(os.EX_CONFIG) from error
        except (OSError, *broker.connection_errors) as error:  # Celery waits for it
            log.warning("queues_not_declared", error=type(error).__name__)

    def _register(self, worker: Any) -> UUID:
        pool = worker.pool_cls.__module__.rpartition(".")[2]
        return workers.register(
            pool=pool,
            concurrency=worker.concurrency,
            queues=_consumed(worker.app),
            asked=getattr(worker, "queue_asked", ""),
        ).id

    def _beat(self, worker: Any, engine: Engine) -> None:
        began, running, stuck = time.monotonic(), engine.running(), len(engine.runner.stuck())
        consumed, taken = _consumed(worker.app), memory.resident_bytes()
        ended = engine.ended + state.all_total_count[0]  # the second is Celery's count of its own tasks
        if workers.beat(engine.worker_id, consumed, running, stuck=stuck, memory_bytes=taken, ended=ended):
            engine.renewed(began)
            engine.window.slots = _slots(worker)
            engine.window.is_shared = not policies.with_few_turns().isdisjoint(consumed)
            self._obey(worker, workers.heard(engine.worker_id))
            return
        old, new = engine.worker_id, self._register(worker)
        engine.replaced(new, began)
        log.warning("lease_lapsed", worker=str(old), now=str(new), running=len(running))

    def _obey(self, worker: Any, asked: str) -> None:
        worker.queue_asked = asked
        if asked in (Asked.STOP, Asked.RECYCLE) and self._stopping is not None:
            self._stopping.end_soon(anew=asked == Asked.RECYCLE)

    def _retire(self) -> None:
        strategy.serve(None)
        for duty in self._duties:
            duty.stop()
        self._hand_over()

    def _leave(self) -> None:
        """When everything is recorded, or cannot be any more."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        self._heartbeat.stop()
        try:
            workers.leave(engine.worker_id)
        except DatabaseError as error:  # the lease runs out
            log.warning("worker_not_left", error=type(error).__name__)
        connections.close_all()

    def _hand_over(self) -> None:
        """Another worker may lead where this one did, without waiting for the leases to end."""
        led = [("recorder", self._recorder.stop), ("reconciler", self._reconciler.stop)]
        led += [("scheduler", self._scheduler.stop), ("alerts", self._watch.stop)]
        for name, stop in led:
            try:
                stop()
            except Exception as error:  # noqa: BLE001  (another takes over when the lease ends)
                log.warning("duty_not_handed_over", duty=name, error=type(error).__name__)


class QueueFollower(bootsteps.StartStopStep):
    """Takes up new and resumed queues and puts paused ones down, in the consumer's own loop; fits the prefetch."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._duties: list[Duty] = []
        self._refused: set[str] = set()

    def start(self, consumer: Any) -> None:  # again after every reconnection
        windows = [celery_task.window]
        engine = getattr(consumer.controller, "queue_engine", None)
        if engine is not None:
            celery_task.window.slots = engine.window.slots
            windows.append(engine.window)
        if isinstance(getattr(consumer.pool, "slots", None), Slots):
            reception.install(consumer, consumer.pool.slots)
        held_up = Returning(consumer, line_of(consumer.controller), celery_task.window)
        self._duties = [
            Duty("queues", partial(self._look, consumer), conf().QUEUE_REFRESH_S),
            Duty(
                "prefetch",
                partial(_fit, consumer, prefetch.Prefetch(consumer, windows), held_up),
                prefetch.LOOK_S,
            ),
        ]
        for duty in self._duties:
            duty.start()

    def stop(self, consumer: Any) -> None:
        for duty in self._duties:
            duty.stop()

    def _look(self, consumer: Any) -> None:
        paused = {name for name, queue in policies.by_name(fresh=True).items() if queue.paused}
        consumed = set(_consumed(consumer.app))
        if getattr(consumer.controller, "queue_asked", "") == Asked.QUIET:
            paused |= consumed
            wanted = set[str]()
        else:
            wanted = (getattr(consumer.controller, "given_queues", None) or queues.consumable()) - paused
        new = self._declared(consumer, wanted - consumed)
        if new or paused & consumed:
            consumer.call_soon(_follow, consumer, new, paused & consumed)

    def _declared(self, consumer: Any, names: set[str]) -> set[str]:
        """Those that the broker has, or had made now; the others are reported once."""
        found = set()
        for name in names - self._refused:
            try:
                with wakeup.connection() as broker:
                    topology.declare(broker, [name])
                found.add(name)
            except topology.OtherArguments as error:
                self._refused.add(name)
                log.error("queue_not_consumed", queue=name, reason=str(error))
        return found


def _fit(consumer: Any, fitting: prefetch.Prefetch, held_up: Returning) -> float:
    """Seconds until the next time."""
    is_held_up = held_up.look()
    rest_s = fitting.fit()
    if is_held_up:  # the window is small by now
        consumer.call_soon(held_up.act)
    return rest_s


def _refuse_greenlets(worker: Any) -> None:
    if worker.pool_cls.is_green:
        log.critical(
            "worker_not_started",
            reason="the queue does not run on gevent or eventlet: its threads would be greenlets of one thread",
            hint="use -P prefork, -P threads or -P solo",
        )
        raise WorkerShutdown(os.EX_USAGE)


def _refuse_eager() -> None:
    if conf().EAGER:
        log.critical(
            "worker_not_started",
            reason="BRAIN['QUEUE']['EAGER'] is on: jobs run where they are enqueued, and nothing is published",
            hint="remove the setting",
        )
        raise WorkerShutdown(os.EX_CONFIG)


def _runner(engine: Engine, worker: Any) -> ThreadRunner | ForkRunner:
    if worker.pool_cls.uses_semaphore:  # prefork
        return ForkRunner(
            engine,
            worker.pool,
            call_soon=lambda act, *arguments: worker.consumer.call_soon(act, *arguments),
            scale=partial(_scale, worker),
        )
    slots = Slots(worker.pool.num_processes)
    if hasattr(worker.pool, "executor"):  # Celery's thread pool
        take_over(worker.pool, slots)
    return ThreadRunner(engine, slots)


def _slots(worker: Any) -> int:
    """What the autoscaler may grow the pool to, or what it is now: `celery control pool_grow` changes that."""
    return max(worker.max_concurrency or 0, worker.pool.num_processes)


def _scale(worker: Any) -> None:
    """More runs than children: Celery's autoscaler, when there is one, looks at its own tasks' messages only."""
    autoscaler = getattr(worker, "autoscaler", None)
    if autoscaler is not None:
        autoscaler.on_task_received(None)
        autoscaler.maybe_scale()


def _pass_on_cancels(engine: Engine) -> None:
    held = engine.held
    asked = workers.cancelled(held) if held else {}
    if asked:
        engine.runner.cancel(asked, by_force={job for job, is_forced in asked.items() if is_forced})


def _follow(consumer: Any, new: set[str], paused: set[str]) -> None:
    if consumer.task_consumer is None:  # the connection is lost; the next one looks again
        return
    driver = consumer.connection.transport.driver_type
    for name in sorted(new):
        for broker_queue in topology.consumed(name, driver):
            consumer.add_task_queue(broker_queue)
    for name in sorted(paused):
        for broker_queue in topology.consumed(name, driver):
            consumer.cancel_task_queue(broker_queue)


def _consumed(app: Any) -> list[str]:
    """The queues, by our names, of which this worker consumes."""
    names = list(app.amqp.queues.consume_from)
    if topology.is_rabbitmq_url(str(app.conf.broker_write_url)):
        return list(dict.fromkeys(map(topology.queue_of, names)))
    return names
