from __future__ import annotations

from typing import Any

import pytest

from orm_app import checks
from orm_app.databases import from_url

SQLITE = "django.db.backends.sqlite3"


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
    assert ids({"default": from_url("mysql://h/n") | {"CONN_MAX_AGE": age}}, has_asgi) == expected


def test_checks__plain_sqlite__warns_of_locks_and_of_atomic_requests():
    entry = {"ENGINE": SQLITE, "NAME": "db", "ATOMIC_REQUESTS": True}
    assert ids({"default": entry}) == ["orm_app.W002", "orm_app.W003"]


def test_checks__the_sites_own_databases__sound():
    assert checks.databases_are_sound(None) == []
