"""The site's settings and the benchmark's tasks; everything else is the default."""

from __future__ import annotations

from brain_project.settings import *  # noqa: F403
from brain_project.settings import INSTALLED_APPS

INSTALLED_APPS += ["benchmarks.queue.brain.apps.BenchmarkConfig"]
