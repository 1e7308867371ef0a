"""The broker's prefetch follows the windows: few messages while tasks are long, many while they are short.

One window for the ledger's runs, one for Celery's own tasks; while both work, the smaller one says how many messages this
process holds, so that none is hoarded behind a long task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queue_app.window import Window

LOOK_S = 0.1


class Prefetch:
    """Of one connection of the consumer. `fit` is for Celery's timer."""

    def __init__(self, consumer: Any, windows: Sequence[Window]) -> None:
        self._consumer, self._windows = consumer, windows
        self._seen = [window.observations for window in windows]
        self._fitted = consumer.initial_prefetch_count

    def fit(self) -> None:
        seen = [window.observations for window in self._windows]
        sizes = [
            window.size
            for window, before, now in zip(self._windows, self._seen, seen, strict=True)
            if before != now
        ]
        self._seen = seen
        if sizes:
            self._change(min(sizes))

    def _change(self, size: int) -> None:
        """By the difference: Celery counts tasks with an ETA on top."""
        if size > self._fitted:
            self._consumer.qos.increment_eventually(size - self._fitted)
        elif size < self._fitted:
            self._consumer.qos.decrement_eventually(self._fitted - size)
        self._fitted = size
