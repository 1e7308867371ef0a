"""The customer's API: `initialize_message_queue` and what it is configured with.

    mq = initialize_message_queue() → mq.create_queue(…) → worker = mq.create_worker(…) → worker.register_handler(…)
    task_id = await mq.enqueue_task(…)   ·   await worker.start()

Imports no model, so that the import line works before Django is set up; what it gives is in message_queue.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .message_queue import MessageQueue


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """A queue to create. max_retries: runs after the first one, so 3 is up to four runs. None: the conf's."""

    name: str
    max_retries: int | None = None
    backoff_base_s: float | None = None
    backoff_max_s: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """A worker of this process. max_concurrent_tasks: its threads; an `async def` handler takes one as well."""

    worker_id: str
    queue_names: Sequence[str]
    max_concurrent_tasks: int = 5


def initialize_message_queue() -> MessageQueue:
    """The queue of this Django project, which is set up first when it is not yet (DJANGO_SETTINGS_MODULE names it)."""
    import django
    from django.apps import apps

    if not apps.ready:
        django.setup()
    from .message_queue import MessageQueue

    return MessageQueue()
