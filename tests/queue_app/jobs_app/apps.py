from __future__ import annotations

from django.apps import AppConfig


class JobsAppConfig(AppConfig):
    name = "tests.queue_app.jobs_app"
    label = "jobs_app"
