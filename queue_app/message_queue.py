"""What the customer's API gives: queues that are declared, tasks by the name of their queue, a worker in this process.

create_queue → declared → first await → its row        enqueue_task → the queue's handler, wherever it is registered
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any, Unpack

import structlog
from asgiref.sync import sync_to_async
from celery import current_app, signals
from celery.worker import state as celery_state

from . import intake, queues, registry
from .compat import QueueConfig, WorkerConfig
from .registry import Task, UnknownTask

log = structlog.get_logger(__name__)

Handler = Callable[..., Any]

_embedded = threading.Lock()  # held while a worker runs here: Celery keeps its state once for each process


class MessageQueue:
    """Made by `initialize_message_queue`."""

    def __init__(self) -> None:
        self._declared: dict[str, QueueConfig] = {}

    def create_queue(self, config: QueueConfig) -> None:
        """Declare a queue; it is stored with the first await, and one that exists keeps its policy. ValueError for a bad
        name or number.
        """
        queues.check_name(config.name)
        if config.max_retries is not None:
            intake.check_retries(config.max_retries)
        self._declared[config.name] = config

    def create_worker(self, config: WorkerConfig) -> QueueWorker:
        """A worker over the given queues; it serves when it is started."""
        return QueueWorker(config, self)

    async def enqueue_task(
        self, queue_name: str, payload: dict[str, Any], **options: Unpack[intake.Options]
    ) -> str:
        """Store a task for the queue's handler and return its id. The options and errors are those of `enqueue`."""
        await self.store_queues()
        options["queue"] = queue_name
        job = await intake.aenqueue(_task_of(queue_name), payload, **options)
        return str(job.id)

    async def store_queues(self) -> None:
        """Make the declared queues that are not made yet."""
        for name, config in list(self._declared.items()):
            await sync_to_async(queues.create_queue)(
                name,
                max_retries=config.max_retries,
                backoff_base_s=config.backoff_base_s,
                backoff_max_s=config.backoff_max_s,
            )
            self._declared.pop(name, None)


class QueueWorker:
    """An embedded Celery worker with threads: one at a time in a process."""

    def __init__(self, config: WorkerConfig, queue: MessageQueue) -> None:
        if not config.queue_names or config.max_concurrent_tasks < 1:
            raise ValueError("a worker needs at least one queue and one task at a time")
        for name in config.queue_names:
            queues.check_name(name)
        self._config, self._queue = config, queue
        self._ended: asyncio.Future[int] | None = None

    def register_handler(self, queue_name: str, handler: Handler) -> None:
        """Have `handler(payload)` or `handler(payload, job)`, sync or async, run what is enqueued to the queue."""
        if queue_name not in self._config.queue_names:
            served = ", ".join(self._config.queue_names)
            raise ValueError(f"worker {self._config.worker_id!r} does not serve {queue_name!r}, but {served}")
        registry.task(name=_handler_name(queue_name), queue=queue_name)(handler)

    async def start(self) -> None:
        """Serve until `stop`, or until this is cancelled; jobs that run are finished first. RuntimeError when the worker
        cannot run, for one because another one does in this process.
        """
        await self._queue.store_queues()
        if not _embedded.acquire(blocking=False):
            raise RuntimeError(
                "a worker runs in this process already: give it all queues, or start a process"
            )
        self._ended = asyncio.get_running_loop().create_future()
        threading.Thread(target=self._serve, args=(asyncio.get_running_loop(), self._ended)).start()
        try:
            exit_code = await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            await self.stop()
            raise
        if exit_code:
            raise RuntimeError(f"the worker ended with exit code {exit_code}; its log says why")

    async def stop(self) -> None:
        """Take no further jobs, finish those that run, and return when `start` may."""
        if self._ended is None or self._ended.done():
            return
        signals.worker_shutting_down.send(sender=self._config.worker_id, sig="stop", how="Warm", exitcode=0)
        celery_state.should_stop = 0
        await asyncio.shield(self._ended)

    def _serve(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Future[int]) -> None:
        try:
            try:
                exit_code = self._run()
            finally:  # before anybody is told, who may start the next one at once
                celery_state.should_stop = None
                _embedded.release()
        except BaseException as error:  # noqa: BLE001  (whoever awaits `start` gets it)
            loop.call_soon_threadsafe(ended.set_exception, error)
        else:
            loop.call_soon_threadsafe(ended.set_result, exit_code)

    def _run(self) -> int:
        """On a thread of its own: Celery's loop blocks. Signals stay with the program, as they go to its main thread."""
        names = list(self._config.queue_names)
        worker = current_app.WorkController(
            hostname=f"{self._config.worker_id}@{socket.gethostname()}",
            pool="threads",
            concurrency=self._config.max_concurrent_tasks,
            queues=names,
            without_mingle=True,
            without_gossip=True,
            ready_callback=lambda consumer: log.info("embedded_worker_ready", queues=names),
        )
        worker.given_queues = frozenset(names)
        worker.start()
        return worker.exitcode or 0


def _handler_name(queue: str) -> str:
    """What job rows carry: the handler may be registered in another process than the one that enqueues."""
    return f"{queue}.handler"


def _task_of(queue: str) -> Task:
    """The queue's handler; else its only `@task`; else the handler of a worker elsewhere. Raises UnknownTask."""
    try:
        return registry.find(_handler_name(queue))
    except UnknownTask:
        if any(known.queue == queue for known in registry.registered()):
            return registry.resolve(queue)
        return Task(_elsewhere, name=_handler_name(queue), queue=queue)


def _elsewhere(payload: dict[str, Any]) -> None:
    """Stands for a handler that this process does not have."""
