"""Test databases: a replica is its primary's mirror there."""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql import creation

from orm_app import topology


class DatabaseCreation(creation.DatabaseCreation):
    connection: Any

    def set_as_test_mirror(self, primary_settings_dict: dict[str, Any]) -> None:
        super().set_as_test_mirror(primary_settings_dict)
        topology.mirror(self.connection.settings_dict)
