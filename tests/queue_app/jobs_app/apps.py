from __future__ import annotations

from typing import Any

from celery import signals
from django.apps import AppConfig


class JobsAppConfig(AppConfig):
    name = "tests.queue_app.jobs_app"
    label = "jobs_app"

    def ready(self) -> None:
        signals.celeryd_init.connect(be_patient, dispatch_uid="jobs_app")


def be_patient(**_: Any) -> None:
    """What a stopping worker waits for comes at once, and may take seconds on a loaded machine."""
    from queue_app.worker import stopping

    stopping.RECORD_S = stopping.JOIN_S = 30.0
