"""The Celery bootsteps of recording: the worker's journal, and its place in the transactions of the broker connection.

at the end the pool drains, then the journal is emptied, then the hub sends the last acknowledgements
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import bootsteps, signals

from . import celery_task, stream
from .journal import Journal

_worker: Callable[[], str] = str  # the id of this process's row


def serve(worker: Callable[[], str]) -> None:
    """worker: the id of this process's row, as the events name it."""
    global _worker
    _worker = worker


class JournalStep(bootsteps.StartStopStep):
    requires = ("celery.worker.components:Hub",)
    label = "Journal"

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._journal = Journal(lambda: _worker(), rides=stream.rides())
        celery_task.tell(self._journal)

    def start(self, worker: Any) -> None:
        """Its thread starts with the consumer, when the pool has forked."""
        if worker.hub is not None:
            # Before the hub's last callbacks, which acknowledge what the draining pool has finished.
            worker.hub.on_close.add(lambda hub: self._journal.stop())
        signals.worker_shutdown.connect(lambda **_: self._journal.stop(), sender=worker, weak=False)


class JournalConnection(bootsteps.StartStopStep):
    """Again after every reconnection."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def start(self, consumer: Any) -> None:
        journal = celery_task.journal()
        if journal is None:
            return
        journal.start()
        hooks = getattr(consumer.connection.transport, "ack_hooks", None)
        if hooks is not None:
            journal.key = f"{consumer.connection.transport_options.get('global_keyprefix') or ''}{stream.KEY}"
            hooks.append(journal.on_ack)
