from __future__ import annotations

from django.apps import AppConfig


class OrmAppConfig(AppConfig):
    name = "orm_app"
    verbose_name = "Users and databases"

    def ready(self) -> None:
        from . import checks  # noqa: F401  (registers itself)
