"""`celery beat` over the schedules' table: beat_schedule entries go as Celery's own scheduler sends them, the table's rows
by the function that workers use, so that neither a second beat nor a worker doubles them. It looks at the alerts' rules
too: no worker can tell that none is left.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import structlog
from celery.beat import PersistentScheduler
from django.db import connections

from . import alerting, firing
from .conf import conf

log = structlog.get_logger(__name__)


class Scheduler(PersistentScheduler):
    """CELERY_BEAT_SCHEDULER = "queue_app.beat:Scheduler"."""

    _watch: alerting.Watch | None = None

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Seconds until the next one. A database that is away keeps Celery's own entries from nothing."""
        if self._watch is None:
            self._watch = _watching()
        try:
            wait_s = firing.look()
        except Exception as error:  # noqa: BLE001  (a database that is down comes back)
            log.warning("schedules_not_looked_at", error=type(error).__name__, reason=str(error)[:200])
            connections.close_all()
            wait_s = conf().RECONCILE_S
        own_s: float | None = super().tick(*args, **kwargs)
        return wait_s if own_s is None else min(wait_s, own_s)

    def close(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.end()
        super().close()


def _watching() -> alerting.Watch:
    me = uuid4()
    watch = alerting.Watch(lambda: me)
    watch.start()
    return watch
