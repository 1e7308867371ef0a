from __future__ import annotations

from django.apps import AppConfig


class CacheAppConfig(AppConfig):
    name = "cache_app"
    verbose_name = "Cache"

    def ready(self) -> None:
        from . import checks as checks  # they register themselves
        from . import model_tags, stats_store

        stats_store.start()
        model_tags.connect()
