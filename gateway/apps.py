from __future__ import annotations

from typing import Any

from django.apps import AppConfig


class GatewayConfig(AppConfig):
    name = "gateway"
    verbose_name = "Gateway"

    def ready(self) -> None:
        from orm_app import users

        from . import checks  # noqa: F401  (they register themselves)

        users.on_less_access(_cut)


def _cut(user: Any, **by: Any) -> None:
    from . import cuts

    cuts.cut_user(user, **by)
