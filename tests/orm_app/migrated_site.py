"""Settings of the site that the migration tests start as processes of their own."""

from __future__ import annotations

import os

from brain_project.settings import *  # noqa: F403

_APPS = ["tests.orm_app.migrated_app"]
INSTALLED_APPS = [*INSTALLED_APPS, *(app for app in _APPS if app not in INSTALLED_APPS)]  # noqa: F405
MIGRATION_MODULES = {"migrated": os.environ.get("MIGRATED_PACKAGE")}
