"""The admin's app: its pages are imported by the URLconf, which serves them, and not by each command and worker."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.apps import SimpleAdminConfig
from django.contrib.admin.checks import check_admin_app, check_dependencies
from django.core.checks import CheckMessage, Tags, register


class AdminConfig(SimpleAdminConfig):
    """Found by name in INSTALLED_APPS, as django.contrib.admin's own are."""

    default = False

    def ready(self) -> None:
        # Instead of Django's, which would look at the pages of an admin that nobody has imported yet.
        register(check_dependencies, Tags.admin)
        register(pages, Tags.admin)


def pages(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    admin.autodiscover()
    return check_admin_app(app_configs, **kwargs)
