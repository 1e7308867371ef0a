"""The two tables of ours beside django_migrations: checksums of applied SQL, and how far a broken migration came.

Made where they are needed, as Django makes its own: they must be there before the first migration, on every alias.
"""

from __future__ import annotations

import functools
from typing import Any

from django.apps.registry import Apps
from django.db import models
from django.utils import timezone

Key = tuple[str, str]  # (app label, migration name)


@functools.cache
def checksum_model() -> type[models.Model]:
    class MigrationChecksum(models.Model):
        app = models.CharField(max_length=150)
        name = models.CharField(max_length=255)
        checksum = models.CharField(max_length=64)  # SHA-256 in hex
        stored_at = models.DateTimeField(default=timezone.now)

        class Meta:
            apps = Apps()
            app_label = "brain_migrations"
            db_table = "brain_migration_checksum"

        def __str__(self) -> str:
            return f"{self.app}.{self.name}"

    return MigrationChecksum


@functools.cache
def progress_model() -> type[models.Model]:
    class MigrationProgress(models.Model):
        """A row while a migration runs outside of a transaction. It stays when the migration breaks."""

        app = models.CharField(max_length=150)
        name = models.CharField(max_length=255)
        is_backwards = models.BooleanField(default=False)
        done = models.TextField(
            default="[]"
        )  # JSON: the committed operations, as `journal.signature` writes them
        statements = models.TextField(
            default="[]"
        )  # JSON: committed statements of the operation that follows
        attempted = models.TextField(default="")  # the statement that was on its way
        deferred = models.TextField(default="[]")  # JSON: what the committed operations left for the end
        error = models.TextField(default="")  # "" after a kill
        started_at = models.DateTimeField(default=timezone.now)

        class Meta:
            apps = Apps()
            app_label = "brain_migrations"
            db_table = "brain_migration_progress"

        def __str__(self) -> str:
            return f"{self.app}.{self.name}"

    return MigrationProgress


def exists(connection: Any, model: type[models.Model]) -> bool:
    with connection.cursor() as cursor:
        return model._meta.db_table in connection.introspection.table_names(cursor)


def ensure(connection: Any, model: type[models.Model]) -> None:
    """Make the table. Outside of a transaction, where the database commits each statement."""
    if not exists(connection, model):
        with connection.schema_editor() as editor:
            editor.create_model(model)


def rows(connection: Any, model: type[models.Model]) -> Any:
    return model._default_manager.using(connection.alias)
