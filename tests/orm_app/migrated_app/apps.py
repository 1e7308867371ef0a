from __future__ import annotations

from django.apps import AppConfig


class MigratedConfig(AppConfig):
    name = "tests.orm_app.migrated_app"
    label = "migrated"
    default_auto_field = "django.db.models.BigAutoField"
