from __future__ import annotations

import time

import pytest
from django.db import connections, transaction

from orm_app import health
from tests.foundation.databases import second_database


@pytest.mark.django_db
def test_check__database_answers__ok_and_timed():
    found = health.check()
    assert (found.name, found.ok) == ("database", True)
    assert 0 < found.took_ms < 60_000


@pytest.fixture
def unreachable(monkeypatch, django_db_blocker):
    """An alias whose PostgreSQL is not there; the password must not show."""
    from orm_app.databases import from_url

    entry = from_url("postgres://brain:hunter2@127.0.0.1:1/brain?connect_timeout=1&pool_timeout=300")
    connections.settings["gone"] = connections.configure_settings({"default": entry})["default"]
    monkeypatch.setattr(health, "_PROBE_TIMEOUT_S", 0.3)
    with django_db_blocker.unblock():
        yield "gone"
        connections["gone"].close_pool()
        del connections["gone"], connections.settings["gone"]


def test_check__server_is_gone__one_line_says_why_within_the_timeout(unreachable):
    started = time.monotonic()
    found = health.check(unreachable)
    assert time.monotonic() - started < 60  # and not the pool's 300
    assert not found.ok
    assert "refused" in found.detail
    assert "\n" not in found.detail
    assert "hunter2" not in found.detail


@pytest.mark.service
def test_check__every_connection_of_the_pool_in_use__says_so(postgresql_url, django_db_blocker, monkeypatch):
    monkeypatch.setattr(health, "_PROBE_TIMEOUT_S", 0.3)
    with django_db_blocker.unblock(), second_database(f"{postgresql_url}?pool_max_size=1") as alias:
        with transaction.atomic(using=alias):
            found = health.check(alias)
        assert not found.ok
        assert "all 1 connections" in found.detail
        connections[alias].close()
        monkeypatch.setattr(health, "_PROBE_TIMEOUT_S", 60.0)
        assert health.check(alias).ok
