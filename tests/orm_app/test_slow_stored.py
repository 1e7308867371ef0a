"""What several threads and the flusher's own thread store on each engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections
from django.test import override_settings

from orm_app import slow, work
from orm_app.models import SlowQuery
from orm_app.slow import finding, flusher, stored
from orm_app.slow.finding import Found
from tests.orm_app.migrating import alias_of, fresh_database

THREADS, ROUNDS, STATEMENTS = 4, 8, 6


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def alias(
    request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: Any, tmp_path_factory: Any
) -> Iterator[str]:
    """A database with the statistics' table."""
    if request.param == "mariadb":
        pytest.importorskip("MySQLdb")
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('stored')}/db.sqlite3"
        with django_db_blocker.unblock(), alias_of(url) as name:
            yield from made(name)
        return
    server = request.getfixturevalue(f"{request.param}_url")
    with django_db_blocker.unblock(), fresh_database(server) as url, alias_of(url) as name:
        yield from made(name)


def made(name: str) -> Iterator[str]:
    with connections[name].schema_editor() as editor:
        editor.create_model(SlowQuery)
    yield name


@pytest.fixture(autouse=True)
def stored_there(alias: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(stored, "USING", alias)
    finding.findings.forget()
    yield
    finding.findings.forget()
    SlowQuery.objects.using(alias).all().delete()


def found(number: int) -> Found:
    return Found(
        fingerprint=f"{number:016}",
        kind="slow",
        alias="a",
        sql="SELECT ?",
        call_site="x",
        hint="",
        last_ms=2.0,
    )


@pytest.mark.service
def test_add__threads_at_once_in_any_order__nothing_is_lost(alias: str) -> None:
    errors: list[Exception] = []

    def work_alone(turn: int) -> None:
        try:
            for _ in range(ROUNDS):
                numbers = range(STATEMENTS) if turn % 2 else reversed(range(STATEMENTS))
                stored.add([found(number) for number in numbers])
        except Exception as error:
            errors.append(error)
        finally:
            connections[alias].close()

    threads = [threading.Thread(target=work_alone, args=(turn,)) for turn in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    rows = slow.every()
    assert len(rows) == STATEMENTS
    assert {(row.count, row.statements, row.total_ms, row.max_ms) for row in rows} == {
        (THREADS * ROUNDS, THREADS * ROUNDS, 2.0 * THREADS * ROUNDS, 2.0)
    }


@pytest.mark.service
def test_flusher__its_own_thread__stores_with_a_plan_and_finds_nothing_itself(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = flusher.Flusher(is_wanted=True)
    monkeypatch.setattr(flusher, "flusher", own)
    with (
        override_settings(BRAIN={"DATABASE": {"SLOW_QUERY_MS": 0, "SLOW_FLUSH_S": 0.1}}),
        work.unit("job", "charge", "j1"),
    ):
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT count(*) FROM orm_app_slowquery WHERE alias = %s", ["hunter2"])
            cursor.fetchall()
        deadline = time.monotonic() + 60
        while not (rows := stored_rows(alias)) or not rows[0]["plan"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        own.stop()
    [row] = stored_rows(alias)
    assert row["alias"] == alias
    assert row["count"] == 1
    assert "orm_app_slowquery" in row["plan"]
    assert row["unit_name"] == "charge"
    assert "hunter2" not in str(row)
    assert finding.findings.take() == []


def stored_rows(alias: str) -> list[dict[str, Any]]:
    with slow.ignored():
        return list(SlowQuery.objects.using(alias).values())
