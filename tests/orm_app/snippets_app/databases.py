"""The tables of this app in a database of the test's own; while it is there, the models without `using` live in it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import connections
from django.test import override_settings

from orm_app.databases import from_url

ENGINES = ("sqlite", "postgresql", "mariadb")
_numbers = itertools.count()


class Router:
    alias: str | None = None

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return self.alias if model._meta.app_label == "snippets_app" else None

    db_for_write = db_for_read

    def allow_relation(self, one: Any, other: Any, **hints: Any) -> bool | None:
        return True if one._meta.app_label == "snippets_app" else None


@contextlib.contextmanager
def snippets_database(url: str) -> Iterator[str]:
    alias = f"snippets_{next(_numbers)}"
    filled = connections.configure_settings({"default": from_url(url), alias: from_url(url)})
    connections.settings[alias] = filled[alias]
    with override_settings(
        INSTALLED_APPS=[*settings.INSTALLED_APPS, "tests.orm_app.snippets_app.apps.SnippetsAppConfig"],
        DATABASE_ROUTERS=[Router()],
    ):
        models = list(apps.get_app_config("snippets_app").get_models())
        Router.alias = alias
        connection = connections[alias]
        with connection.schema_editor() as editor:
            for model in models:
                editor.create_model(model)
        connection.close()
        try:
            yield alias
        finally:
            with connection.schema_editor() as editor:
                for model in reversed(models):
                    editor.delete_model(model)
            Router.alias = None
            connection.close()
            if hasattr(connection, "close_pool"):
                connection.close_pool()
            del connections[alias]
            del connections.settings[alias]


def empty(alias: str) -> None:
    from .models import Article, Everything, Order, User

    for model in (Article, Order, Everything, User):
        model._default_manager.using(alias).all()._raw_delete(alias)


def url_of(engine: str, request: Any, folder: Any) -> str:
    if engine == "sqlite":
        return f"sqlite:///{folder}/snippets.sqlite3?timeout=60"
    if engine == "postgresql":
        return f"{request.getfixturevalue('postgresql_url')}?pool_max_size=6"
    return request.getfixturevalue("mariadb_url")
