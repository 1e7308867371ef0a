"""The site's settings with this app, for commands that the tests run."""

from __future__ import annotations

from brain_project.settings import *  # noqa: F403
from brain_project.settings import INSTALLED_APPS

INSTALLED_APPS += ["tests.orm_app.snippets_app.apps.SnippetsAppConfig"]
