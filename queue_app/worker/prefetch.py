"""The broker's prefetch follows the windows: few messages while tasks are long, many while they are short.

One window for the ledger's runs, one for Celery's own tasks; while both work, the smaller one says how many messages this
process holds, so that none is hoarded behind a long task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queue_app.window import Window

LOOK_S = 0.1  # while tasks end
REST_S = 0.5  # while none does


class Prefetch:
    """Of one connection of the consumer. Not on Celery's timer, whose every tick is a turn of the whole loop: ten of them a
    second were most of what an idle worker cost. Kombu's QoS takes its changes from any thread.
    """

    def __init__(self, consumer: Any, windows: Sequence[Window]) -> None:
        self._consumer, self._windows = consumer, windows
        self._seen = [window.observations for window in windows]
        self._fitted = consumer.initial_prefetch_count
        # RabbitMQ gives a prefetch to a consumer when it begins, and quorum queues know no other.
        self._is_fixed = consumer.connection.transport.driver_type == "amqp"
        # On Redis it is Celery's, which counts its own tasks; on RabbitMQ Celery would leave it out. The prefetch counts what
        # runs, so that the first one, a message a slot, leaves none to wait behind it.
        self._is_off = self._is_fixed and consumer.app.conf.worker_disable_prefetch

    def fit(self) -> float:
        """Seconds until the next time."""
        if self._is_off:
            return REST_S
        seen = [window.observations for window in self._windows]
        sizes = [
            window.size
            for window, before, now in zip(self._windows, self._seen, seen, strict=True)
            if before != now
        ]
        self._seen = seen
        if not sizes:
            return REST_S
        self._change(min(sizes))
        return LOOK_S

    def _change(self, size: int) -> None:
        """By the difference: Celery counts tasks with an ETA on top."""
        if self._is_fixed and self._fitted / 2 < size < self._fitted * 2:
            return  # beginning anew is worth it for a real change only
        if size > self._fitted:
            self._consumer.qos.increment_eventually(size - self._fitted)
        elif size < self._fitted:
            self._consumer.qos.decrement_eventually(self._fitted - size)
        self._fitted = size
        if self._is_fixed:
            self._consumer.call_soon(_begin_anew, self._consumer)


def _begin_anew(consumer: Any) -> None:
    """On the consumer's loop. What was delivered before stays and is acknowledged as ever."""
    if consumer.task_consumer is None:  # the connection is lost; the next one begins with the first prefetch
        return
    consumer.qos.update()
    consumer.task_consumer.cancel()
    consumer.task_consumer.consume()
