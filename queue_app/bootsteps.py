"""What the site adds to its Celery app so that a worker keeps the ledger: `bootsteps.install(app)`.

Imported before Django's app registry is ready, so it imports none of the models: Celery loads the steps by name.
"""

from __future__ import annotations

from typing import Any

from celery import Celery, signals


def install(app: Celery) -> None:
    """Make the workers of this app register themselves, beat, reconcile and follow the queues."""
    app.steps["worker"].add("queue_app.duties:Membership")
    app.steps["consumer"].add("queue_app.duties:QueueFollower")
    signals.celeryd_init.connect(_remember_queues, weak=False, dispatch_uid="queue_app.bootsteps")


def _remember_queues(instance: Any, options: dict[str, Any], **_: Any) -> None:
    # Celery forgets whether -Q was given; without it a worker consumes every queue, and new ones as they come.
    instance.given_queues = frozenset(options.get("queues") or ())
