from __future__ import annotations

import json

import pytest
from django.core.management import call_command
from django.db import connection, connections
from django.test import Client
from django.urls import path

from foundation import commands, roles
from foundation.health import Health
from orm_app import health, status
from orm_app.api import standing
from orm_app.databases import from_url
from orm_app.models import User
from tests.foundation.databases import second_database

from . import commanding

pytestmark = pytest.mark.django_db
urlpatterns = [path("api/v1/database/status", standing.StatusView.as_view())]


def database(*argv: str) -> tuple[int, str]:
    return commanding.database(*argv)[:2]


@pytest.fixture(autouse=True)
def keep_the_tests_connection(monkeypatch):
    monkeypatch.setattr("django.core.management.base.connections.close_all", lambda: None)


def test_status__migrated_database__ok():
    found = status.of("default")
    assert (found.state, found.pending_migrations) == ("ok", 0)
    assert found.engine == connection.vendor
    assert found.version


def test_command__ok__table_and_json_with_exit_code_0():
    code, text = database()
    assert code == 0
    assert "default" in text
    code, text = database("--json")
    [entry] = json.loads(text)["databases"]
    assert (code, entry["alias"], entry["state"]) == (0, "default", "ok")


def test_command__migrations_are_pending__exit_code_3(monkeypatch):
    monkeypatch.setattr(status, "_pending_migrations", lambda connection: 2)
    code, text = database()
    assert code == 3
    assert "default: 2 migrations are pending" in text


def test_pending__a_migration_taken_back__counted(tmp_path, django_db_blocker):
    with django_db_blocker.unblock(), second_database(f"sqlite:///{tmp_path}/s.sqlite3") as alias:
        call_command("migrate", database=alias, verbosity=0)
        assert status.of(alias).state == "ok"
        call_command("migrate", "foundation", "0002", database=alias, verbosity=0)
        found = status.of(alias)
        assert (found.state, found.pending_migrations) == ("degraded", 1)


def test_command__database_is_down__exit_code_1(monkeypatch):
    monkeypatch.setattr(
        health, "check", lambda using="default": Health("database", False, "connection refused")
    )
    code, text = database()
    assert code == 1
    assert "default: connection refused" in text


def test_command__postgresql_is_away__waits_three_seconds_instead_of_the_pools_ten(monkeypatch):
    entry = from_url("postgres://brain@127.0.0.1:9/brain")
    monkeypatch.setitem(connections.settings, "default", connections.settings["default"] | entry)
    with commands._impatient():
        assert entry["OPTIONS"]["pool"]["timeout"] == 3
    assert entry["OPTIONS"]["pool"]["timeout"] == 10


def test_server__settings_with_a_password__never_shown():
    shown = status._server({"HOST": "db", "PORT": 5432, "USER": "brain", "PASSWORD": "hunter2"})
    assert shown == "brain@db:5432"


@pytest.mark.service
def test_status__postgresql__server_version_and_pool(postgresql_url, django_db_blocker):
    with django_db_blocker.unblock(), second_database(f"{postgresql_url}?pool_max_size=2") as alias:
        found = status.of(alias)
        assert found.engine == "postgresql"
        assert found.server.startswith("brain@127.0.0.1:")
        assert found.pool is not None
        assert (found.pool["max"], found.pool["waiting"]) == (2, 0)


@pytest.mark.urls("tests.orm_app.test_status")
@pytest.mark.parametrize(("role", "code"), [(None, 403), (roles.VIEWER, 200)])
def test_api__role__viewers_see_the_status(role, code):
    user = User.objects.create_user("ann", "ann@example.com")
    if role:
        roles.grant(user, role)
    client = Client()
    client.force_login(user)
    answer = client.get("/api/v1/database/status")
    assert answer.status_code == code
    if code == 200:
        assert answer.json()["databases"][0]["alias"] == "default"
