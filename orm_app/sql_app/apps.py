from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class SQLMigrationsConfig(AppConfig):
    name = "orm_app.sql_app"
    label = "sql"
    verbose_name = "SQL migrations"

    def ready(self) -> None:
        autodiscover_modules("sql_migrations")
