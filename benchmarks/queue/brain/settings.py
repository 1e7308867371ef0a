"""The site's settings and the benchmark's tasks; everything else is the default."""

from __future__ import annotations

import os

from brain_project.settings import *  # noqa: F403
from brain_project.settings import INSTALLED_APPS

INSTALLED_APPS += ["benchmarks.queue.brain.apps.BenchmarkConfig"]

# The celery command hands the variable BROKER_URL on as it is, past what the settings make of it.
os.environ.pop("CELERY_BROKER_URL", None)
