"""The roof's app: pours settings.BRAIN down into the apps' conf and registers the checks of what was wrong with it."""

from __future__ import annotations

from django.apps import AppConfig


class BrainProjectConfig(AppConfig):
    name = "brain_project"
    verbose_name = "Brain Platform"

    def ready(self) -> None:
        from . import checks, conf  # noqa: F401  (checks register themselves)

        conf.bind()
