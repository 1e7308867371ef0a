"""django-q2 on Redis; results are not kept."""

from __future__ import annotations

import os

SECRET_KEY = "benchmark"
INSTALLED_APPS = ["django.contrib.contenttypes", "django_q"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["BENCH_DATABASE"]}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
Q_CLUSTER = {
    "name": "bench",
    "workers": int(os.environ.get("BENCH_WORKERS", "8")),
    "redis": os.environ["BENCH_REDIS_URL"],
    "save_limit": -1,
    "timeout": 60,
    "retry": 120,
    "log_level": "WARNING",
}
