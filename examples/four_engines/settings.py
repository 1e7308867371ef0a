"""The platform's settings with a second database, `shop`, from DATABASE_URLS=shop=URL; this app lives there."""

from __future__ import annotations

from brain_project.settings import *  # noqa: F403
from brain_project.settings import DATABASES
from orm_app.databases import default_auto_field

INSTALLED_APPS = [
    "brain_project.apps.BrainProjectConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "foundation.apps.FoundationConfig",
    "orm_app.apps.OrmAppConfig",
    "examples.four_engines.apps.FourEnginesConfig",
]
MIDDLEWARE = []
BRAIN = {"DATABASE": {"APPS": {"four_engines": "shop"}}}
# Numbers in SQL, ObjectIds in MongoDB. An app that is always in one of them writes it into its AppConfig.
FOUR_ENGINES_KEY = default_auto_field(DATABASES["shop"])
