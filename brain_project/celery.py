"""The Celery app. `celery -A brain_project worker` (or beat) starts the embedded Valkey first when REDIS_URL is unset."""

from __future__ import annotations

import os
import sys
from typing import Any

from celery import Celery
from celery.signals import setup_logging

from queue_app.uuid7 import uuid7
from queue_app.worker import bootsteps

from . import broker
from .task_log import TaskLogStep

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "brain_project.settings")


class App(Celery):
    """Takes every broker URL through our transport, also one that `celery -b` or the environment puts over the settings."""

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        return super().connection_for_read(broker.url(url or self.conf.broker_read_url), **options)

    def send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: Any = None,
        task_id: str | None = None,
        **options: Any,
    ) -> Any:
        """As Celery's, also under `.delay()`. An id that is not given sorts by time, as those of jobs do."""
        chosen = task_id or str(uuid7())
        return super().send_task(name, args, kwargs, countdown, eta, chosen, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        return super().connection_for_write(broker.url(url or self.conf.broker_write_url), **options)


app = App("brain_project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.steps["worker"].add(TaskLogStep)
bootsteps.install(app)


@setup_logging.connect(dispatch_uid="brain_project.celery")
def keep_logging(**_: Any) -> None:
    """With a receiver here Celery leaves the logging alone that Django's settings have set up."""


def _is_consumer(argv: list[str]) -> bool:
    return os.path.basename(argv[0]) in ("celery", "__main__.py") and bool({"worker", "beat"} & set(argv[1:]))


if _is_consumer(sys.argv):
    from . import embedded

    embedded.ensure()
