"""Test databases: a pool holds connections to a database that is to be dropped or copied, so it is closed first."""

from __future__ import annotations

from typing import Any

from django.db.backends.mysql import creation

from orm_app import topology


class DatabaseCreation(creation.DatabaseCreation):
    connection: Any

    def set_as_test_mirror(self, primary_settings_dict: dict[str, Any]) -> None:
        super().set_as_test_mirror(primary_settings_dict)
        topology.mirror(self.connection.settings_dict)

    def _clone_test_db(self, suffix: str, verbosity: int, keepdb: bool = False) -> None:
        self.connection.close()
        self.connection.close_pool()
        super()._clone_test_db(suffix, verbosity, keepdb)

    def _destroy_test_db(self, test_database_name: str, verbosity: int) -> None:
        self.connection.close_pool()
        super()._destroy_test_db(test_database_name, verbosity)
