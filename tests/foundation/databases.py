"""A second, migrated database beside the test's own: what several connections or another vendor do, seen for real."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

from django.core.management import call_command
from django.db import connections

from orm_app.databases import from_url

_numbers = itertools.count()


@contextlib.contextmanager
def second_database(url: str, *, app: str = "foundation") -> Iterator[str]:
    """Yields the alias of the database at `url`, migrated for `app` and what it depends on."""
    # An alias of its own: threads of an earlier test still hold their connection of the earlier alias.
    alias = f"second_{next(_numbers)}"
    # configure_settings fills in the keys that Django expects, and wants a "default" among them.
    filled = connections.configure_settings({"default": from_url(url), alias: from_url(url)})
    connections.settings[alias] = filled[alias]
    try:
        call_command("migrate", app, database=alias, verbosity=0)
        yield alias
    finally:
        connection = connections[alias]
        connection.close()
        if hasattr(connection, "close_pool"):
            connection.close_pool()
        del connections[alias]
        del connections.settings[alias]


@contextlib.contextmanager
def default_database(url: str, *apps: str) -> Iterator[None]:
    """The database at `url`, migrated (for these apps, if any are named), as Django's default one. Depend on `django_db_setup` first: made while another
    database is the default, it would be made there."""
    before = connections.settings["default"], connections["default"]
    connections.settings["default"] = connections.configure_settings({"default": from_url(url)})["default"]
    del connections["default"]
    try:
        for app in apps or (None,):
            call_command("migrate", *filter(None, [app]), verbosity=0)
        yield
    finally:
        connections["default"].close()
        if hasattr(connections["default"], "close_pool"):
            connections["default"].close_pool()
        connections.settings["default"], connections["default"] = before
