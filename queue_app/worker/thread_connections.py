"""The database connections of a worker's threads and children: kept from run to run, and tidied after each.

Celery closes a thread's connections before and after every task, so that each task that asks the database pays for a new
one. Here Celery's tasks keep theirs as the ledger's jobs do.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from celery import signals
from celery.fixups.django import DjangoFixup
from django.conf import settings
from django.core.cache import close_caches
from django.core.cache.backends.base import BaseCache
from django.db import Error, connections
from django.utils.module_loading import import_string

_AGE_S = 60


def keep(app: Any) -> None:
    """In a worker a connection belongs to a thread that lives as long as the process: kept for a while, and no pool.

    A pool's threads and sockets would not survive a fork, and there are never more threads than connections. Before the
    fork, for the children.
    """
    for alias in connections:
        entry = connections.settings[alias]
        entry["CONN_MAX_AGE"] = _AGE_S
        entry["OPTIONS"].pop("pool", None)
    for fixup in app._fixups:
        if isinstance(fixup, DjangoFixup):
            signals.task_prerun.disconnect(fixup.worker_fixup.on_task_prerun)
            signals.task_postrun.disconnect(fixup.worker_fixup.on_task_postrun)
    signals.task_postrun.connect(_after_task, dispatch_uid=__name__)
    if _caches_close():
        signals.task_postrun.connect(_close_caches, dispatch_uid=f"{__name__}.caches")


def tidy() -> None:
    """Close what a handler left broken or in a transaction; a good connection stays for the thread's next run."""
    for used in connections.all(initialized_only=True):
        if used.in_atomic_block or used.errors_occurred:
            # Within a block Django keeps a closed connection closed until the block ends, and this one never does.
            used.in_atomic_block = used.closed_in_transaction = False
            # A cursor that an exception's traceback still holds keeps SQLite's transaction, and its lock, past the close.
            with suppress(Error):
                used.rollback()
            used.close()
        else:
            used.close_if_unusable_or_obsolete()


def _after_task(task: Any, **_: Any) -> None:
    if not task.request.is_eager:  # else it is part of another run
        tidy()


def _close_caches(task: Any, **_: Any) -> None:
    if not task.request.is_eager:
        close_caches()


def _caches_close() -> bool:
    """Whether any cache has something to close after a task: django-redis' has nothing unless it is told so."""
    if getattr(settings, "DJANGO_REDIS_CLOSE_CONNECTION", False):
        return True
    backends = {import_string(cache["BACKEND"]) for cache in settings.CACHES.values()}
    return any(
        _module_of_close(backend) not in ("django_redis.cache", BaseCache.__module__) for backend in backends
    )


def _module_of_close(backend: Any) -> str:
    return str(backend.close.__module__)
