"""A second, migrated database beside the test's own: what several connections or another vendor do, seen for real."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.core.management.commands import flush
from django.db import connections
from django.db.migrations.recorder import MigrationRecorder

from foundation.models import AuditEntry
from orm_app.databases import from_url
from tests import environment

_numbers = itertools.count()
Names = frozenset[tuple[str, str]]
# What migrating a server's database for these apps has left in it: it need not be tried again while that is still so.
_on_servers: dict[tuple[str, tuple[str, ...]], Names] = {}


@contextlib.contextmanager
def second_database(url: str, *, app: str = "foundation") -> Iterator[str]:
    """Yields the alias of the database at `url`, migrated for `app` and what it depends on."""
    # An alias of its own: threads of an earlier test still hold their connection of the earlier alias.
    alias = f"second_{next(_numbers)}"
    # configure_settings fills in the keys that Django expects, and wants a "default" among them.
    filled = connections.configure_settings({"default": from_url(url), alias: from_url(url)})
    connections.settings[alias] = filled[alias]
    try:
        migrate(url, alias, app)
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
        migrate(url, "default", *apps)
        yield
    finally:
        connections["default"].close()
        if hasattr(connections["default"], "close_pool"):
            connections["default"].close_pool()
        connections.settings["default"], connections["default"] = before
        ContentType.objects.clear_cache()


def migrate(url: str, alias: str, *apps: str) -> None:
    """For these apps, or for all. Migrating takes seconds, so a run does it once for each server and once for all SQLite files."""
    if url.startswith("sqlite"):
        _copy_or_migrate(Path(urlsplit(url).path), alias, apps)
    else:
        _migrate_server(url, alias, apps)
    ContentType.objects.clear_cache()  # the ids are another database's


def _migrate_server(url: str, alias: str, apps: tuple[str, ...]) -> None:
    if _on_servers.get((url, apps)) != _applied(alias):
        _migrate(alias, apps)
        _on_servers[url, apps] = _applied(alias)
    # All modules have the server in turn, and most commit some act to it.
    table = AuditEntry._meta.db_table
    if table in connections[alias].introspection.table_names():
        with connections[alias].cursor() as cursor:
            cursor.execute(f"DELETE FROM {table}")


def _copy_or_migrate(file: Path, alias: str, apps: tuple[str, ...]) -> None:
    migrated = Path(environment.DATA_DIR) / f"migrated-{'-'.join(apps)}.sqlite3"
    if file.exists():
        _migrate(alias, apps)
        return
    if migrated.exists():
        shutil.copyfile(migrated, file)
        return
    _migrate(alias, apps)
    connections[alias].close()  # the last one takes the write-ahead log in
    shutil.copyfile(file, migrated)


def _migrate(alias: str, apps: tuple[str, ...]) -> None:
    for app in apps or (None,):
        call_command("migrate", *filter(None, [app]), database=alias, verbosity=0)


def _applied(alias: str) -> Names:
    return frozenset(MigrationRecorder(connections[alias]).applied_migrations())


def quicken_flushes() -> Callable[[], None]:
    """From now on a flush of the run's own database puts back the content types, permissions and groups that are in it
    now: what Django does after each flush, which is after each transactional test, finds the same out with hundreds of
    queries. Returns what undoes it."""
    if ContentType._meta.db_table not in connections["default"].introspection.table_names():
        return lambda: None  # no test that was asked for uses it, so it was not made
    own = connections["default"].settings_dict
    kept = [(model, list(model._base_manager.all())) for model in (ContentType, Permission, Group)]
    emit = flush.emit_post_migrate_signal

    def put_back(verbosity: int, interactive: bool, db: str, **options: Any) -> None:
        if connections[db].settings_dict is not own:
            emit(verbosity, interactive, db, **options)
            return
        for model, rows in kept:
            model._base_manager.using(db).bulk_create(rows)
        ContentType.objects.clear_cache()

    flush.emit_post_migrate_signal = put_back
    return lambda: setattr(flush, "emit_post_migrate_signal", emit)
