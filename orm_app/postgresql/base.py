"""The name that Django looks for: its PostgreSQL backend, with our pool."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base
from psycopg_pool import ConnectionPool

from .creation import DatabaseCreation
from .pool import Pool


class DatabaseWrapper(base.DatabaseWrapper):
    creation_class = DatabaseCreation

    @property
    def pool(self) -> Pool | None:
        """This alias's pool in this process, made on first use; None without OPTIONS["pool"]."""
        options = self.settings_dict["OPTIONS"].get("pool")
        if self.alias == NO_DB_ALIAS or not options:
            return None
        found: Pool | None = self._connection_pools.get(self.alias)
        if found is None:
            found = self._connection_pools.setdefault(self.alias, self._new_pool(options))
        return found

    def _new_pool(self, options: Any) -> Pool:
        settings = self.settings_dict
        if settings.get("CONN_MAX_AGE", 0) != 0:
            raise ImproperlyConfigured(
                f"DATABASES[{self.alias!r}]: a pool needs CONN_MAX_AGE = 0; its connections stay open by themselves."
            )
        return Pool(
            self.alias,
            kwargs=self.get_connection_params() | {"autocommit": True},
            configure=self._configure_connection,
            check=ConnectionPool.check_connection if settings["CONN_HEALTH_CHECKS"] else None,
            **({} if options is True else options),
        )
