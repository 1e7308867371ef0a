from __future__ import annotations

from django.apps import AppConfig
from django.conf import settings


class FourEnginesConfig(AppConfig):
    name = "examples.four_engines"
    label = "four_engines"
    verbose_name = "Demo: one program on four engines"

    @property
    def default_auto_field(self) -> str:
        return str(settings.FOUR_ENGINES_KEY)
