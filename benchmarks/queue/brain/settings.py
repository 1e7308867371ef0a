"""The site's settings and the benchmark's tasks; everything else is the default."""

from __future__ import annotations

import os

from brain_project.settings import *  # noqa: F403
from brain_project.settings import BRAIN, INSTALLED_APPS

INSTALLED_APPS += ["benchmarks.queue.brain.apps.BenchmarkConfig"]
if os.environ.get("BENCH_COUNTED") == "0":
    BRAIN["QUEUE"] = BRAIN.get("QUEUE", {}) | {"ROLLUPS": False}
