"""The site's settings for workers that the tests start: short times, and an app with handlers.

A lease outlasts the moments in which a loaded machine stands still; a test in which a worker dies asks for a shorter one.
"""

from __future__ import annotations

import json
import os

from brain_project.settings import *  # noqa: F403
from brain_project.settings import BRAIN, INSTALLED_APPS

INSTALLED_APPS += ["tests.queue_app.jobs_app.apps.JobsAppConfig"]
BRAIN["QUEUE"] |= {"LEASE_S": 6.0, "RECONCILE_S": 0.2, "REPUBLISH_S": 1.5, "QUEUE_REFRESH_S": 0.5}
BRAIN["QUEUE"] |= {"WARM_STOP_S": 4.0, "RECYCLE_S": 2.0, "BACKOFF_BASE_S": 0.01}
BRAIN["QUEUE"] |= json.loads(os.environ.get("TEST_QUEUE_CONF", "{}"))
if BRAIN["QUEUE"]["ALERT_WEBHOOKS"]:  # BRAIN_ALERT_WEBHOOKS
    BRAIN["QUEUE"]["ALERT_LOOK_S"] = 0.3
TASKS = {"default": {"BACKEND": "queue_app.django_tasks.LedgerBackend", "QUEUES": []}}
TASKS["patient"] = TASKS["default"] | {"OPTIONS": {"max_retries": 2}}
