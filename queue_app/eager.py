"""Eager mode: a job runs in the process that enqueued it, when its transaction commits; nothing is published.

    commit → wakeup.publish → here → InlineWorker → the job's end on its row → what it has enqueued, one after another

For development and tests: BRAIN["QUEUE"]["EAGER"], or `queue_app.testing.eager()`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

import structlog

from . import policies, wakeup
from .inline import InlineWorker
from .publication import Wakeup

log = structlog.get_logger(__name__)

MOST = 1000  # runs for one commit: a job that enqueues itself would keep its caller for ever


class _Series(threading.local):
    """What waits behind the job that this thread is running; None: it runs none."""

    waiting: deque[Wakeup] | None = None


_series = _Series()


def run(wakeups: Sequence[Wakeup]) -> bool:
    """As `wakeup.publish`. What a running job enqueues runs after it, not inside it."""
    if _series.waiting is not None:
        _series.waiting.extend(wakeups)
        return True
    _series.waiting = waiting = deque(wakeups)
    try:
        with InlineWorker("eager") as worker:
            for _ in range(MOST):
                if not waiting:
                    return True
                _run(worker, waiting.popleft())
        log.error("eager_runs_left", jobs=len(waiting), after=MOST)
    finally:
        _series.waiting = None
    return True


def _run(worker: InlineWorker, told: Wakeup) -> None:
    if told.id != wakeup.LOOK:
        worker.run(told.id)
    if told.queue in policies.governed():
        worker.hand_out(told.queue)  # which publishes, so that what has its turn comes here
