"""The site's settings with this app on MongoDB, for commands that the tests run."""

from __future__ import annotations

import os

from brain_project.settings import *  # noqa: F403
from brain_project.settings import BRAIN, DATABASES, INSTALLED_APPS
from orm_app.databases import from_url

INSTALLED_APPS += ["tests.orm_app.documents_app.apps.DocumentsAppConfig"]
DATABASES["mongodb"] = from_url(os.environ["BRAIN_TEST_DOCUMENTS_URL"])
BRAIN["DATABASE"] |= {"APPS": {"documents_app": "mongodb"}}
