"""A pool that says of itself what Celery's gevent and eventlet pools do; neither is installed here."""

from __future__ import annotations

from celery.concurrency.solo import TaskPool as Solo


class TaskPool(Solo):
    is_green = True
