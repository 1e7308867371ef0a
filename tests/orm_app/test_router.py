from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connections, router
from django.test import override_settings
from structlog.testing import capture_logs

from orm_app import User, db
from orm_app.databases import from_url
from orm_app.topology import topology
from tests.orm_app.migrating import alias_of


@pytest.fixture
def second(tmp_path: Path) -> Iterator[str]:
    """A second database, empty, under the alias `second`."""
    with database("second", f"sqlite:///{tmp_path / 'second.sqlite3'}") as alias:
        yield alias


@contextlib.contextmanager
def database(alias: str, url: str, **more: Any) -> Iterator[str]:
    entry = from_url(url) | more
    connections.settings[alias] = connections.configure_settings({"default": entry})["default"]
    try:
        yield alias
    finally:
        connections[alias].close()
        if getattr(connections[alias], "pool", None):
            connections[alias].close_pool()  # type: ignore[attr-defined]
        del connections[alias], connections.settings[alias]


def mapped(**apps: str) -> Any:
    return override_settings(BRAIN={"DATABASE": {"APPS": apps}})


def test_router__app_is_mapped__reads_and_writes_go_there_and_others_stay(second: str) -> None:
    with mapped(auth=second):
        assert (router.db_for_read(Group), router.db_for_write(Group)) == (second, second)
        assert (router.db_for_read(User), router.db_for_write(User)) == ("default", "default")
    assert router.db_for_read(Group) == "default"


def test_router__row_of_a_database_that_was_named__is_saved_there(second: str) -> None:
    group = Group(name="x")
    group._state.db = second
    assert router.db_for_write(Group, instance=group) == second
    with mapped(auth="default"):
        assert router.db_for_write(Group, instance=group) == second


def test_router__rows_of_two_databases__no_relation(second: str) -> None:
    user, group = User(), Group()
    user._state.db, group._state.db = "default", second
    assert not router.allow_relation(user, group)
    group._state.db = "default"
    assert router.allow_relation(user, group)


@pytest.mark.parametrize("scheme", ["postgres", "mysql"])
def test_router__replica_that_tests_made_a_mirror__gets_no_reads_and_is_still_one(scheme: str) -> None:
    entry = f"{scheme}://brain@127.0.0.1:1/brain"
    with (
        database("first", entry),
        database("first_replica1", entry, REPLICA_OF="first"),
        mapped(auth="first"),
    ):
        assert topology().replicas == {"first": ("first_replica1",)}
        connections["first_replica1"].creation.set_as_test_mirror(connections["first"].settings_dict)
        assert topology().replicas == {}
        with db.replica():
            assert router.db_for_read(Group) == "first"
        group = Group(name="x")
        group._state.db = "first_replica1"
        assert router.db_for_write(Group, instance=group) == "first"
        assert not router.allow_migrate("first_replica1", "auth")


def test_migrate__database_with_one_app_mapped_to_it__holds_its_tables_and_no_others(
    tmp_path: Path, django_db_blocker: Any
) -> None:
    with (
        django_db_blocker.unblock(),
        alias_of(f"sqlite:///{tmp_path / 'second.sqlite3'}") as second,
        mapped(contenttypes=second),
    ):
        call_command("migrate", "contenttypes", database=second, verbosity=0, interactive=False)
        call_command("migrate", "auth", database=second, verbosity=0, interactive=False)
        tables = connections[second].introspection.table_names()
    assert ContentType._meta.db_table in tables
    assert not [name for name in tables if name.startswith("auth_")]


def test_migrate__statements_that_take_long__are_no_slow_queries(
    tmp_path: Path, django_db_blocker: Any
) -> None:
    with (
        django_db_blocker.unblock(),
        alias_of(f"sqlite:///{tmp_path / 'second.sqlite3'}") as second,
        override_settings(BRAIN={"DATABASE": {"SLOW_QUERY_MS": 0}}),
        capture_logs() as logs,
    ):
        call_command("migrate", "contenttypes", database=second, verbosity=0, interactive=False)
    assert "slow_query" not in {line["event"] for line in logs}
