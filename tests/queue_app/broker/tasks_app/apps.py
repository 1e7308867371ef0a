from __future__ import annotations

from django.apps import AppConfig


class TasksAppConfig(AppConfig):
    name = "tests.queue_app.broker.tasks_app"
    label = "broker_tasks_app"
