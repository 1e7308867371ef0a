from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from django.db import connections

from orm_app import checks
from orm_app.databases import from_url
from tests.foundation.databases import second_database
from tests.orm_app.migrating import alias_of, fresh_database

SQLITE, POSTGRESQL = "django.db.backends.sqlite3", "django.db.backends.postgresql"
MYSQL = "orm_app.mysql_pool"


def ids(databases: dict[str, Any], has_asgi: bool = True) -> list[str]:
    found = checks.unsound(databases, has_asgi=has_asgi)
    for message in found:
        assert f"docs/checks.md#{message.id.replace('.', '-').lower()}" in message.hint
    return [message.id for message in found]


@pytest.mark.parametrize("url", ["sqlite:///a/b", "postgres://u:p@h/n", "mysql://u:p@h/n"])
def test_checks__entry_from_a_url__nothing_to_say(url):
    assert ids({"default": from_url(url)}) == []


def test_checks__options_beside_default__error():
    assert ids({"default": from_url("sqlite:///a/b"), "OPTIONS": {"timeout": 20}}) == ["orm_app.E001"]


def test_checks__option_beside_options__error():
    assert ids({"default": from_url("postgres://h/n") | {"pool": True}}) == ["orm_app.E002"]


@pytest.mark.parametrize(
    ("age", "has_asgi", "expected"),
    [(60, True, ["orm_app.W001"]), (None, True, ["orm_app.W001"]), (60, False, [])],
)
def test_checks__kept_connections__warning_under_asgi_only(age, has_asgi, expected):
    entry = {"ENGINE": "django.db.backends.mysql", "CONN_MAX_AGE": age}
    assert ids({"default": entry}, has_asgi) == expected


@pytest.mark.parametrize("url", ["postgres://h/n", "mysql://h/n"])
def test_checks__pool_and_kept_connections__error_and_not_twice(url):
    assert ids({"default": from_url(url) | {"CONN_MAX_AGE": 60}}) == ["orm_app.E004"]


def test_checks__pool_that_cannot_be__error():
    entry = from_url("mysql://h/n")
    assert ids({"default": entry | {"ENGINE": "django.db.backends.mysql"}}) == ["orm_app.E003"]
    assert ids({"default": entry | {"OPTIONS": {"pool": {"size": 3}}}}) == ["orm_app.E005"]


@pytest.mark.parametrize(
    ("engine", "pool", "most"),
    [
        (MYSQL, True, 8),
        (MYSQL, {"max_size": 20}, 20),
        (POSTGRESQL, True, 4),
        (POSTGRESQL, {"min_size": 6}, 6),
        (POSTGRESQL, {"min_size": 1, "max_size": 9}, 9),
        (POSTGRESQL, False, 0),
        (SQLITE, True, 0),
    ],
)
def test_most_connections__entry__as_its_pool_would_have(engine, pool, most):
    assert checks.most_connections({"ENGINE": engine, "OPTIONS": {"pool": pool}}) == most


def test_sharing_a_server__same_host_and_port__counted_together():
    urls = {"a": "postgres://h:1/x", "b": "postgres://h:1/y", "c": "postgres://h:2/x", "d": "sqlite:///x"}
    databases = {alias: from_url(url) for alias, url in urls.items()}
    assert checks.sharing_a_server(databases) == [["a", "b"], ["c"]]


def test_crowded__pools_of_all_processes__against_the_servers_room():
    assert checks.crowded({"a": 8, "b": 4}, processes=8, room=96) == []
    (found,) = checks.crowded({"a": 8, "b": 4}, processes=9, room=96)
    assert found.id == "orm_app.W004"
    assert "9 processes × (8 + 4) may open 108 connections, the server has 96" in found.msg
    assert "docs/checks.md#orm_app-w004" in str(found.hint)


@pytest.mark.service
@pytest.mark.parametrize("server", ["postgresql_url", "mariadb_url"])
def test_pools_fit__real_server__warns_of_the_alias_asked_for_alone(
    server, request, settings, django_db_setup, django_db_blocker
):
    if server == "mariadb_url":
        pytest.importorskip("MySQLdb")
    url = f"{request.getfixturevalue(server)}?pool_max_size=500"
    with (
        django_db_blocker.unblock(),
        second_database(url, app="orm_app") as alias,
        mock.patch.dict(settings.DATABASES, {alias: from_url(url)}),
    ):
        (found,) = checks.pools_fit(None, databases=[alias])
        assert found.id == "orm_app.W004"
        assert checks.pools_fit(None, databases=["default"]) == []
        assert checks.pools_fit(None) == []


@pytest.mark.service
@pytest.mark.parametrize(("charset", "wanted"), [("latin1", ["orm_app.W005"]), ("utf8mb4", [])])
def test_charsets__database_of_mariadb__warns_of_what_does_not_hold_every_text(
    charset, wanted, mariadb_url, django_db_blocker
):
    pytest.importorskip("MySQLdb")
    with django_db_blocker.unblock(), fresh_database(mariadb_url) as url, alias_of(url) as alias:
        with connections[alias].cursor() as cursor:
            cursor.execute(f"ALTER DATABASE CHARACTER SET {charset}")
        connections[alias].close()
        connections[alias].close_pool()
        assert [one.id for one in checks.charsets_hold_every_text(None, databases=[alias])] == wanted
        assert checks.charsets_hold_every_text(None) == []


def test_checks__plain_sqlite__warns_of_locks_and_of_atomic_requests():
    entry = {"ENGINE": SQLITE, "NAME": "db", "ATOMIC_REQUESTS": True}
    assert ids({"default": entry}) == ["orm_app.W002", "orm_app.W003"]


def test_checks__the_sites_own_databases__sound():
    assert checks.databases_are_sound(None) == []
