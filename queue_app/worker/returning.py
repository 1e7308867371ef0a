"""Plain tasks that wait in this worker behind long ones go back to the broker: other workers may have slots that are free.

    nothing that waits has moved for LONG_S → the window shrinks to what runs → what waits goes back, in its order

While tasks are short a worker holds hundreds. On our Redis transport alone: RabbitMQ counts every return as one of the few
deliveries that a message has. What waits when the worker stops goes back everywhere, as it would with the connection.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Protocol

import structlog
from celery.worker import state

from queue_app.window import LONG_S, Window

from .reception import Waiting
from .slots import Slots

log = structlog.get_logger(__name__)


class Line(Protocol):
    """Celery's requests that are here and have not begun."""

    def place(self) -> object:
        """Differs when it has moved; None: nobody waits. From any thread."""

    def withdraw(self) -> list[Any]:
        """Take them out, in their order. On the loop's thread."""


class SlotsLine:
    """On threads. What Celery's own way has brought here, as it does while somebody listens to its events, stays."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    def place(self) -> object:
        return self._slots.begun if self._slots.waiting else None

    def withdraw(self) -> list[Any]:
        return [call.request for call in self._slots.withdraw(Waiting)]


class ChildrenLine:
    """On a prefork pool, whose requests wait for its semaphore."""

    def __init__(self, semaphore: Any) -> None:
        self._waiting = semaphore._waiting

    def place(self) -> object:
        try:
            return id(self._waiting[0])
        except IndexError:
            return None

    def withdraw(self) -> list[Any]:
        return [args[0] for _, args, _ in (self._waiting.popleft() for _ in range(len(self._waiting)))]


def line_of(worker: Any) -> Line | None:
    """None: its pool runs what comes at once, or Celery has no event loop on this transport."""
    if worker.pool_cls.uses_semaphore:
        return None if worker.semaphore is None else ChildrenLine(worker.semaphore)
    slots = getattr(worker.pool, "slots", None)
    return SlotsLine(slots) if isinstance(slots, Slots) else None


class Returning:
    """Of one connection of the consumer. window: of Celery's own tasks."""

    def __init__(self, consumer: Any, line: Line | None, window: Window) -> None:
        self._consumer, self._line, self._window = consumer, line, window
        self._place: object = None
        self._since = time.monotonic()

    def look(self) -> bool:
        """Whether what waits is to go back. From a thread of its own, twice a second."""
        place = None if self._line is None else self._line.place()
        if place is None or place != self._place:
            self._place, self._since = place, time.monotonic()
            return False
        if time.monotonic() - self._since < LONG_S or not _may_return(self._consumer):
            return False
        self._since = time.monotonic()
        self._window.observe(LONG_S)  # else it would be claimed again at once
        return True

    def act(self) -> None:
        """On the loop."""
        consumer = self._consumer
        if (
            self._line is None or consumer.task_consumer is None
        ):  # the connection is lost, and what it brought comes again
            return
        if consumer.qos.prev != consumer.qos.value:
            consumer.qos.update()  # the smaller window, before anything is given back
        give_back(self._line.withdraw())


def give_back(requests: Iterable[Any]) -> None:
    """To the queues that they came from. On the loop's thread.

    On our transport as if this worker had never claimed them; elsewhere as their connection's end would do it later.
    """
    tags: dict[Any, list[str]] = {}
    count = 0
    for request in requests:
        state.task_ready(request)
        message = request.message
        if message.channel.connection is None:
            continue  # it is gone, and the message comes again by itself
        count += 1
        if _takes_back(message.channel):
            tags.setdefault(message.channel, []).append(message.delivery_tag)
        else:
            message.requeue()
    for channel, ours in tags.items():
        channel.qos.give_back(ours)
    if count:
        log.info("tasks_let_go", messages=count)


def _may_return(consumer: Any) -> bool:
    task_consumer = consumer.task_consumer
    return task_consumer is not None and _takes_back(task_consumer.channel)


def _takes_back(channel: Any) -> bool:
    return hasattr(getattr(channel, "qos", None), "give_back")
