"""The drills' settings for `celery beat`, which has no option that names its tasks."""

from __future__ import annotations

from .settings import *  # noqa: F403

CELERY_IMPORTS = ["tests.drills.queue.jobs"]
