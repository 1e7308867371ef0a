from __future__ import annotations

from django.apps import AppConfig


class TasksServiceConfig(AppConfig):
    name = "examples.tasks_service"
    label = "tasks_service"
    verbose_name = "Demo: tasks"
