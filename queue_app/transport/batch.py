"""Kombu's publish batch, with one wake-up token for each queue it touched instead of one for each message."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as base

from .scripts import PUBLISH


class PublishBatch(base.PublishBatch):
    def __init__(self, channel: Any, max_size: int) -> None:
        self._touched: set[str] = set()
        super().__init__(channel, max_size)

    def touch(self, queue: str) -> None:
        """A message for this queue is about to be buffered."""
        self._touched.add(queue)

    def flush(self) -> None:
        self._check_usable()
        if self._buffered:
            for queue in self._touched:
                self.pipeline.eval(PUBLISH, 1, self.channel.wake_key(queue))
            self._touched.clear()
        super().flush()
