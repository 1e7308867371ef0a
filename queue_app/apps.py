from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class QueueAppConfig(AppConfig):
    name = "queue_app"
    verbose_name = "Queue"

    def ready(self) -> None:
        # They register themselves.
        from . import checks  # noqa: F401
        from .broker import handlers  # noqa: F401
        from .worker import strategy  # noqa: F401

        # Here rather than in the worker alone: `enqueue` must know the tasks in every process.
        autodiscover_modules("tasks")
