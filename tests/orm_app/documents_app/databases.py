"""The collections of this app in a MongoDB database of the test's own, under an alias of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.db import connections
from django.test import override_settings

from orm_app.databases import from_url

_numbers = itertools.count()


def require_driver() -> None:
    if find_spec("django_mongodb_backend") is None:
        message = "django-mongodb-backend is not installed (requirements-mongo.txt)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)


def fresh(url: str) -> str:
    """The URL of a database of the test's own on that server."""
    base, _, query = url.partition("?")
    return f"{base.rpartition('/')[0]}/t_{uuid.uuid4().hex[:12]}{'?' if query else ''}{query}"


@contextlib.contextmanager
def documents_database(url: str, *, with_collections: bool = True) -> Iterator[str]:
    """The app lives under the alias, in a new database on that server; with_collections=False: migrate makes them."""
    alias = f"documents_{next(_numbers)}"
    entry = from_url(fresh(url))
    connections.settings[alias] = connections.configure_settings({"default": entry, alias: entry})[alias]
    installed = [*settings.INSTALLED_APPS, "tests.orm_app.documents_app.apps.DocumentsAppConfig"]
    try:
        with override_settings(
            INSTALLED_APPS=installed, BRAIN={"DATABASE": {"APPS": {"documents_app": alias}}}
        ):
            if with_collections:
                _create(alias)
            yield alias
    finally:
        connection: Any = connections[alias]
        connection.ensure_connection()
        connection.connection.drop_database(entry["NAME"])
        connection.close_pool()
        del connections[alias], connections.settings[alias]


def _create(alias: str) -> None:
    with connections[alias].schema_editor() as editor:
        for model in apps.get_app_config("documents_app").get_models():
            editor.create_model(model)


def empty(alias: str) -> None:
    for model in apps.get_app_config("documents_app").get_models():
        connections[alias].get_collection(model._meta.db_table).delete_many({})  # type: ignore[attr-defined]
