"""The roof's app: loads Celery's, pours settings.BRAIN down into the apps' conf and registers the checks of it."""

from __future__ import annotations

from django.apps import AppConfig

from . import celery  # noqa: F401  (before any app's tasks, so that shared tasks belong to our Celery app)


class BrainProjectConfig(AppConfig):
    name = "brain_project"
    verbose_name = "Brain Platform"

    def ready(self) -> None:
        from . import checks, conf, log_context  # noqa: F401  (checks and receivers register themselves)

        conf.bind()
        conf.refuse_in_production()
