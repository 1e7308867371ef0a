"""The settings of the workers and callers that these tests start."""

from __future__ import annotations

import os

from tests.queue_app.worker_settings import *  # noqa: F403
from tests.queue_app.worker_settings import CELERY_BROKER_TRANSPORT_OPTIONS, INSTALLED_APPS

INSTALLED_APPS += ["tests.queue_app.broker.tasks_app.apps.TasksAppConfig"]
CELERY_BROKER_TRANSPORT_OPTIONS |= (
    {"visibility_timeout": float(os.environ["TEST_VISIBILITY_S"]), "unacked_restore_interval": 0.5}
    if "TEST_VISIBILITY_S" in os.environ
    else {}
)
if "TEST_DELIVERY_LIMIT" in os.environ:
    CELERY_BROKER_TRANSPORT_OPTIONS["delivery_limit"] = int(os.environ["TEST_DELIVERY_LIMIT"])
CELERY_RESULT_BACKEND = os.environ.get("TEST_RESULT_BACKEND")
