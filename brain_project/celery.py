"""The Celery app. `celery -A brain_project worker` (or beat) starts the embedded Valkey first when REDIS_URL is unset."""

from __future__ import annotations

import os
import sys
from typing import Any

from celery import Celery
from celery.signals import setup_logging
from django_structlog.celery.steps import DjangoStructLogInitStep

from queue_app import bootsteps

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "brain_project.settings")

app = Celery("brain_project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.steps["worker"].add(DjangoStructLogInitStep)
bootsteps.install(app)


@setup_logging.connect(dispatch_uid="brain_project.celery")
def keep_logging(**_: Any) -> None:
    """With a receiver here Celery leaves the logging alone that Django's settings have set up."""


def _is_consumer(argv: list[str]) -> bool:
    return os.path.basename(argv[0]) in ("celery", "__main__.py") and bool({"worker", "beat"} & set(argv[1:]))


if _is_consumer(sys.argv):
    from . import embedded

    embedded.ensure()
