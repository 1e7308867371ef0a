"""Whether a worker makes progress. One that does not must not look alive: it ends, and its supervisor starts it again.

looks → what is wrong, and since when → after STALLED_S: critical log, its row given up, exit code 70
"""

from __future__ import annotations

import time
from collections.abc import Callable

from celery.worker import state

from queue_app import health, publication
from queue_app.conf import conf

from .engine import Engine


class Liveness:
    """Of one worker. consumed: the queues that it takes messages from now; end: ends it, for a reason."""

    def __init__(
        self, engine: Engine, *, consumed: Callable[[], list[str]], end: Callable[[str], None]
    ) -> None:
        self._engine, self._consumed, self._end = engine, consumed, end
        self._fine_at: dict[str, float] = {}
        self._asked_at = time.monotonic()

    def look(self) -> None:
        if self._engine.is_closed:
            return  # how long it may take to stop is another's business
        now = time.monotonic()
        if not self._engine.is_alive:
            self._end("the ledger's thread has died")
        if self._lasts("behind", self._engine.is_behind, now, since=self._engine.turned_at):
            self._end("the ledger's thread hangs")
        if now - self._asked_at > conf().STALLED_S / 4:
            self._asked_at = now
            if self._lasts("idle", self._is_passed_by(), now, since=self._engine.received_at):
                self._end("jobs wait in its queues and no message arrives")

    def _lasts(self, name: str, is_wrong: bool, now: float, *, since: float) -> bool:
        """Whether it has been wrong for STALLED_S, at every look and without a sign of life."""
        if not is_wrong or name not in self._fine_at:
            self._fine_at[name] = now
        return now - max(self._fine_at[name], since) > conf().STALLED_S

    def _is_passed_by(self) -> bool:
        """It could take jobs, jobs wait long enough, the broker answers, and yet it has none."""
        if self._engine.held or state.reserved_requests or state.active_requests:
            return False
        waiting = set(publication.stale_queues(conf().STALLED_S)) & set(self._consumed())
        return bool(waiting) and health.check().ok
