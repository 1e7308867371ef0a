"""The site with a MongoDB beside its SQL database: migrate and its lock, the state, the checks, the commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.apps import apps
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connections, models, router
from django.db.models.signals import post_migrate
from django.test import override_settings
from django.test.utils import isolate_apps

from orm_app import Field, Model, databases, health, migration_plan, mongo, mongo_checks, pools, status
from orm_app.migrate import rollback
from orm_app.mongo_lease import Lease
from tests.conftest import _restore_role_groups

from .documents_app import databases as documents


@pytest.fixture(scope="module")
def alias(request, django_db_setup, django_db_blocker) -> Iterator[str]:
    documents.require_driver()
    url = request.getfixturevalue("mongodb_url")
    # It fills the groups' table after each migrate, which is not on this alias.
    was_connected = post_migrate.disconnect(dispatch_uid="tests.role_groups")
    with django_db_blocker.unblock(), documents.documents_database(url, with_collections=False) as name:
        yield name
    if was_connected:
        post_migrate.connect(_restore_role_groups, dispatch_uid="tests.role_groups")


@pytest.fixture
def migrated(alias: str) -> str:
    call_command("migrate", database=alias, verbosity=0)
    return alias


@pytest.mark.service
def test_migrate__on_the_alias__its_app_alone_and_back(migrated: str) -> None:
    collections = set(connections[migrated].introspection.table_names())
    assert collections == {
        "django_migrations",
        "authors",
        "documents_app_note",
        "review",
        "brain_migration_lock",
    }
    output = StringIO()
    call_command("migrate", database=migrated, stdout=output)
    assert "No migrations to apply" in output.getvalue()
    assert rollback("documents_app", "1", using=migrated) == [("documents_app", "0001_models")]
    assert not {"authors", "review"} & set(connections[migrated].introspection.table_names())
    plan = migration_plan.of(migrated)
    assert [(one.app, one.is_atomic) for one in plan] == [("documents_app", False)]
    assert "db.create_collection" in " ".join(sql for one in plan[0].operations for sql in one.sql)


@pytest.mark.service
def test_migrate__sql_database__makes_no_table_of_the_documents(migrated: str) -> None:
    allowed = [router.allow_migrate(name, "documents_app") for name in ("default", migrated)]
    assert allowed == [False, True]
    assert router.allow_migrate(migrated, "auth") is False


@pytest.mark.service
def test_lease__held_by_another__waits_and_says_since_when(migrated: str) -> None:
    lease = Lease(connections[migrated])
    assert lease.takes()
    try:
        assert lease.is_held()
        with pytest.raises(CommandError, match=r"another migrate \(since .* UTC\) holds the lock"):
            call_command("migrate", database=migrated, verbosity=0, wait=0)
    finally:
        lease.free()
    call_command("migrate", database=migrated, verbosity=0, wait=0)


@pytest.mark.service
def test_lease__its_holder_is_gone__free_when_it_has_run_out(migrated: str) -> None:
    for lease_s in (0.2, 2, 20):  # a longer one, should a busy machine let it run out before it is looked at
        killed, next_one = Lease(connections[migrated], lease_s), Lease(connections[migrated], lease_s=300)
        assert killed.takes()
        killed._stop.set()  # nothing renews it any more
        if not next_one.takes():
            break
        next_one.free()
    else:
        pytest.fail("it was free at once")
    for _ in range(3000):
        if next_one.takes():
            break
        next_one._stop.wait(0.02)
    assert (next_one.is_held(), killed.is_held()) == (True, False)
    killed.free()  # too late, and not the other's
    assert next_one.is_held()
    next_one.free()


@pytest.mark.service
def test_lease__work_takes_longer_than_the_lease__renewed(migrated: str) -> None:
    for lease_s in (0.3, 3, 30):  # a longer one, should a busy machine keep it from being renewed
        lease = Lease(connections[migrated], lease_s)
        assert lease.takes()
        lease._stop.wait(2.3 * lease_s)
        other = Lease(connections[migrated])
        is_renewed = lease.is_held() and not other.takes()
        lease.free()
        other.free()
        if is_renewed:
            return
    pytest.fail("it ran out while its holder worked")


@pytest.mark.service
def test_status__of_the_alias__version_and_hosts_without_the_query(migrated: str, capsys: Any) -> None:
    found = status.of(migrated)
    assert (found.state, found.engine, found.pending_migrations) == ("ok", "mongodb", 0)
    assert found.version[0].isdigit()
    assert (found.server.startswith("127.0.0.1:"), found.pool) == (True, None)
    with pytest.raises(SystemExit):  # this app's migration is not recorded on "default": degraded
        call_command("database", json=True)
    printed = json.loads(capsys.readouterr().out)
    assert migrated in [one["alias"] for one in printed["databases"]]
    assert pools.stats(migrated) == []
    assert list(pools.families())


@pytest.mark.service
def test_makemigrations__of_the_app__knows_its_keys(migrated: str) -> None:
    call_command(
        "makemigrations", "documents_app", check=True, dry_run=True, verbosity=0
    )  # exits 1 for a change


@pytest.mark.service
def test_checks__with_the_alias__nothing_to_complain_of(migrated: str) -> None:
    found = run_checks(app_configs=[apps.get_app_config("documents_app")], databases=[migrated])
    assert found == []


def test_health__server_is_gone__down_in_bounded_time_without_topology(monkeypatch: Any) -> None:
    documents.require_driver()
    monkeypatch.setattr(health, "_MONGODB_TIMEOUT_S", 0.3)
    entry = databases.from_url("mongodb://ann:secret@127.0.0.1:1/brain")
    connections.settings["gone"] = connections.configure_settings({"default": entry, "gone": entry})["gone"]
    try:
        found = health.check("gone")
        assert (found.ok, "Topology" in found.detail, "secret" in found.detail) == (False, False, False)
        assert found.detail.startswith("127.0.0.1:1: ")
        assert any(took_ms < 2000 for took_ms in (found.took_ms, health.check("gone").took_ms))
        assert status.of("gone").state == "down"
    finally:
        connections["gone"].close_pool()  # type: ignore[attr-defined]
        del connections["gone"], connections.settings["gone"]


def test_hosts__url_with_secrets__shows_the_servers() -> None:
    entry = databases.from_url("mongodb://ann:pw@a:1,b:2/x?authMechanismProperties=AWS_SESSION_TOKEN:secret")
    assert mongo.hosts(entry) == "a:1,b:2"


@isolate_apps("tests.orm_app")
def test_keys_fit__key_of_the_other_kind__an_error_that_names_the_way_out(tmp_path: Any) -> None:
    documents.require_driver()

    class Numbered(models.Model):  # noqa: DJ008
        class Meta:
            app_label = "documents_app"

    class Filed(Model):
        _fields = {"id": Field("OBJECTID", primary_key=True)}

        class Meta:
            app_label = "snippets_app"

    entry = databases.from_url("mongodb://127.0.0.1:1/brain")
    connections.settings["there"] = connections.configure_settings({"default": entry, "there": entry})[
        "there"
    ]
    try:
        with override_settings(BRAIN={"DATABASE": {"APPS": {"documents_app": "there"}}}):
            numbered, filed = mongo_checks.misplaced([Numbered, Filed])
    finally:
        del connections.settings["there"]
    assert (numbered.id, filed.id) == ("orm_app.E020", "orm_app.E021")
    assert 'Field("OBJECTID", primary_key=True)' in str(numbered.hint)
    assert "APPS" in str(filed.hint)


def test_declared__objectid_without_the_package__says_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "django_mongodb_backend.fields", None)
    with pytest.raises(ImproperlyConfigured, match=r"requirements-mongo\.txt"):
        Field("OBJECTID", primary_key=True)


def test_declared__serial_beside_objectid_app__refused_where_it_is_written(monkeypatch: Any) -> None:
    documents.require_driver()
    monkeypatch.setattr(
        apps,
        "get_containing_app_config",
        lambda name: type("Config", (), {"default_auto_field": mongo.AUTO_FIELD})(),
    )
    with pytest.raises(ValueError, match=r"Wrong.id: MongoDB numbers no rows"):

        class Wrong(Model):
            _fields = {"id": Field("SERIAL", primary_key=True)}
