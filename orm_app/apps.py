from __future__ import annotations

from django.apps import AppConfig


class OrmAppConfig(AppConfig):
    name = "orm_app"
    verbose_name = "Users and databases"

    def ready(self) -> None:
        from . import checks, mongo_checks, replica_checks, router  # noqa: F401  (the checks register themselves)
        from .slow import capture, repeats  # noqa: F401  (repeats registers itself)

        capture.install()
        router.install()
