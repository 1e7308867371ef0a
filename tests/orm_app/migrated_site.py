"""Settings of the site that the migration tests start as processes of their own: as few apps as migrate can do with."""

from __future__ import annotations

import os
from typing import Any

from brain_project.settings import *  # noqa: F403
from brain_project.settings import INSTALLED_APPS

_NEEDED = ("django.contrib.auth", "django.contrib.contenttypes", "foundation.", "orm_app.")
INSTALLED_APPS = [app for app in INSTALLED_APPS if app.startswith(_NEEDED)] + ["tests.orm_app.migrated_app"]
ROOT_URLCONF = __name__
urlpatterns: list[Any] = []
MIGRATION_MODULES = {"migrated": os.environ.get("MIGRATED_PACKAGE")}
