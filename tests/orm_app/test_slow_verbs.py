from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connections
from django.test import override_settings

from foundation.models import AuditEntry
from orm_app import locks, slow
from orm_app.models import SlowQuery, User
from orm_app.slow import finding, server
from tests.orm_app.migrating import alias_of
from tests.orm_app.test_status import database, keep_the_tests_connection  # noqa: F401  (a fixture)


@pytest.fixture
def found() -> SlowQuery:
    finding.findings.forget()
    with override_settings(BRAIN={"DATABASE": {"SLOW_QUERY_MS": 0}}):
        list(User.objects.filter(username="ann"))
    slow.flush()
    return slow.every()[0]


@pytest.mark.django_db
def test_slow__rows__table_and_json(found: SlowQuery) -> None:
    code, text = database("slow")
    assert code == 0
    assert found.fingerprint in text
    code, text = database("slow", "--json", "--order", "max", "--kind", "slow")
    [row] = json.loads(text)["statements"]
    assert row["sql"] == found.sql
    assert row["call_site"].endswith(" in found")
    assert database("slow", "--kind", "n_plus_one")[1] == "Nothing was slow or repeated.\n"


@pytest.mark.django_db
def test_slow__clear__only_with_yes_and_audited(found: SlowQuery) -> None:
    assert database("slow", "--clear")[0] == 3
    assert SlowQuery.objects.count() == 1
    assert database("slow", "--clear", "--yes")[0] == 0
    assert not SlowQuery.objects.exists()
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.source, entry.after) == ("database.slow_clear", "cli", {"rows": 1})


@pytest.mark.django_db
def test_explain__statement_and_slow_one__plan(found: SlowQuery) -> None:
    code, text = database("explain", "SELECT * FROM orm_app_user WHERE username = 'ann'", "--format", "json")
    assert code == 0
    assert "orm_app_user" in json.loads(text)["text"]
    assert database("explain", "--slow", found.fingerprint) == (0, f"{found.plan}\n")
    assert database("explain", "DROP TABLE orm_app_user")[0] == 1
    assert database("explain")[0] == 2


@pytest.mark.service
@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_server_statistics__not_enabled__says_how(
    engine: str, request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: Any
) -> None:
    if engine == "mariadb":
        pytest.importorskip("MySQLdb")
    url = request.getfixturevalue(f"{engine}_url")
    with django_db_blocker.unblock(), alias_of(url) as alias, pytest.raises(server.NotEnabled, match="performance_schema|shared_preload"):  # fmt: skip
        server.top(alias)


def session(**more: Any) -> locks.Session:
    values: dict[str, Any] = {
        "id": 7, "user": "ann", "application": "", "client": "", "state": "waiting", "sql": "UPDATE t SET a = ?",
        "waits_for": "x", "blocked_by": (8,), "waiting_s": 6.0, "statement_s": 6.0, "transaction_s": 9.0, "is_ours": False,
    }  # fmt: skip
    return locks.Session(**values | more)


@pytest.mark.django_db
@pytest.mark.parametrize(("waits_s", "code"), [(6.0, 3), (0.5, 0)], ids=["long", "short"])
def test_locks__somebody_waits__exit_code_by_how_long(
    waits_s: float, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = locks.Locks("default", "postgresql", [session(waiting_s=waits_s)])
    monkeypatch.setattr(locks, "every", lambda alias: shown)
    assert database("locks")[0] == code
    found, text = database("locks", "--json")
    assert found == code
    assert json.loads(text)["sessions"][0]["blocked_by"] == [8]


@pytest.mark.django_db
def test_locks__end__only_with_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []

    def end(alias: str, id: int, **who: Any) -> locks.Session:
        assert who["source"] == "cli"
        ended.append(id)
        return session()

    monkeypatch.setattr(locks, "every", lambda alias: locks.Locks("default", "postgresql", [session()]))
    monkeypatch.setattr(locks, "end", end)
    assert database("locks", "end", "7")[0] == 3
    assert ended == []
    assert database("locks", "end", "7", "--yes")[0] == 0
    assert ended == [7]


@pytest.mark.django_db
def test_locks__sqlite__what_can_be_known() -> None:
    if connections["default"].vendor != "sqlite":
        pytest.skip("of SQLite's")
    code, text = database("locks", "cancel", "7")
    assert code == 1
    assert database("locks")[0] == 0
