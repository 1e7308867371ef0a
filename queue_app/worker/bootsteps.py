"""What the site adds to its Celery app so that a worker keeps the ledger: `bootsteps.install(app)`.

Imported before Django's app registry is ready, so it imports none of the models: Celery loads the steps by name.
"""

from __future__ import annotations

from typing import Any

from celery import Celery, signals

_STOCK_AUTOSCALER = "celery.worker.autoscale:Autoscaler"


def install(app: Celery) -> None:
    """Make the workers of this app register themselves, beat, reconcile, follow the queues and record what tasks do."""
    app.task_cls, app.amqp_cls = "queue_app.broker.celery_task:Task", "queue_app.broker.publishing:AMQP"
    app.steps["worker"].add("queue_app.broker.recording:JournalStep")
    app.steps["worker"].add("queue_app.worker.duties:Membership")
    app.steps["consumer"].add("queue_app.broker.recording:JournalConnection")
    app.steps["consumer"].add("queue_app.worker.duties:QueueFollower")
    signals.celeryd_init.connect(_prepare, weak=False, dispatch_uid="queue_app.worker.bootsteps")


def _prepare(instance: Any, conf: Any, options: dict[str, Any], **_: Any) -> None:
    if conf.worker_autoscaler == _STOCK_AUTOSCALER:
        conf.worker_autoscaler = "queue_app.worker.autoscaling:Autoscaler"
    # Celery forgets whether -Q was given; without it a worker consumes every queue, and new ones as they come.
    instance.given_queues = frozenset(options.get("queues") or ())
