from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connections, transaction
from django.test import Client
from django.utils import timezone

from foundation import roles
from foundation.models import AuditEntry
from orm_app import asking, locks, operations, replicas, slow
from orm_app.backups import BackupFailed
from orm_app.models import SlowQuery
from tests.foundation.databases import second_database
from tests.foundation.people import client_of

from .conftest import Away

BASE = "/api/v1/database"

pytestmark = pytest.mark.django_db


@pytest.fixture
def viewer() -> Client:
    return client_of(roles.VIEWER, is_staff=False)


@pytest.fixture
def operator() -> Client:
    return client_of(roles.OPERATOR, is_staff=False)


@pytest.fixture
def admin() -> Client:
    return client_of(roles.ADMIN, is_staff=False)


def post(client: Client, path: str, body: Any = None) -> Any:
    return client.post(f"{BASE}/{path}", json.dumps(body), content_type="application/json")


def problem(answer: Any, status: int) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), (
        answer.content
    )
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize(
    "path", ["status", "health", "pools", "replicas", "locks", "slow", "migrations", "backups"]
)
def test_reading__by_role__for_viewers_and_nobody_else(path: str, viewer: Client) -> None:
    assert viewer.get(f"{BASE}/{path}").status_code == 200
    problem(client_of(None, is_staff=False).get(f"{BASE}/{path}"), 403)
    problem(Client().get(f"{BASE}/{path}"), 401)


@pytest.mark.parametrize(
    ("path", "body", "role"),
    [
        ("slow/clear", {}, roles.OPERATOR),
        ("locks/cancel", {"id": 1}, roles.OPERATOR),
        ("locks/end", {"id": 1}, roles.ADMIN),
        ("backups/take", {}, roles.ADMIN),
        ("backups/verify", {"name": "a"}, roles.ADMIN),
    ],
)
def test_acting__by_role__nobody_below(
    path: str, body: Any, role: str, viewer: Client, operator: Client
) -> None:
    problem(post(viewer, path, body), 403)
    if role == roles.ADMIN:
        problem(post(operator, path, body), 403)
    assert not AuditEntry.objects.exists()


def test_status__one_is_away__the_others_are_told_and_it_says_why(viewer: Client, away: Away) -> None:
    answer = away.within_four_seconds(lambda: viewer.get(f"{BASE}/status"))
    found = {one["alias"]: one for one in answer.json()["databases"]}
    assert found["default"]["state"] == "ok"
    gone = found[away.alias]
    assert (gone["state"], gone["pending_migrations"]) == ("down", None)
    assert "refused" in gone["detail"]
    assert away.password not in json.dumps(gone)


@pytest.mark.parametrize("path", ["health", "locks", "migrations"])
def test_asking__a_database_that_is_away__is_503(path: str, viewer: Client, away: Away) -> None:
    told = problem(viewer.get(f"{BASE}/{path}?alias={away.alias}"), 503)["detail"]
    assert told.startswith(f"{away.alias} does not answer: ")
    assert away.password not in told


def test_asking__unknown_names__are_refused(viewer: Client, operator: Client) -> None:
    problem(viewer.get(f"{BASE}/locks?alias=nobody"), 404)
    told = problem(viewer.get(f"{BASE}/slow?aliass=default"), 400)["errors"]
    assert "did you mean alias" in told[0]["detail"]
    for path in ("status", "pools", "replicas"):  # of all aliases
        problem(viewer.get(f"{BASE}/{path}?alias=nobody"), 400)
    problem(viewer.get(f"{BASE}/slow?order=size"), 400)
    problem(viewer.get(f"{BASE}/slow?limit=0"), 400)
    problem(post(operator, "slow/clear", {"allias": "default"}), 400)
    assert not AuditEntry.objects.exists()


def test_migrations__of_the_tests_database__applied_with_when(viewer: Client) -> None:
    found = viewer.get(f"{BASE}/migrations").json()
    assert (found["pending"], found["plan"], found["unfinished"]) == (0, [], [])
    first = next(one for one in found["migrations"] if one["app"] == "orm_app")
    assert first["state"] == "applied"
    assert first["applied_at"]


def test_health__of_the_tests_database__findings_and_tables(viewer: Client) -> None:
    found = viewer.get(f"{BASE}/health").json()
    levels = {one["name"]: one["level"] for one in found["findings"]}
    assert (levels["connection"], levels["migrations"]) == ("ok", "ok")
    assert found["tables"]


def test_pools__of_this_process__none_for_sqlite(viewer: Client) -> None:
    found = viewer.get(f"{BASE}/pools").json()
    assert found["process"] == os.getpid()
    if connections["default"].vendor == "sqlite":
        assert found["pools"] == []


def test_replicas__each__with_its_lag(viewer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = replicas.State("copy", "default", usable=False, lag_s=12.5, reason="it is 12.5 s behind")
    monkeypatch.setattr(replicas, "states", lambda: [seen])
    [found] = viewer.get(f"{BASE}/replicas").json()["replicas"]
    assert (found["alias"], found["lag_s"], found["usable"]) == ("copy", 12.5, False)


def slow_row(fingerprint: str, **values: Any) -> SlowQuery:
    now = timezone.now()
    given = {
        "kind": "slow",
        "alias": "default",
        "sql": "SELECT ?",
        "count": 1,
        "first_seen": now,
        "last_seen": now,
    }
    return SlowQuery.objects.create(fingerprint=fingerprint, **(given | values))


def test_slow__filtered_and_ordered__then_cleared_with_an_entry(viewer: Client, operator: Client) -> None:
    slow_row("a" * 16, total_ms=500.0, count=1)
    slow_row("b" * 16, total_ms=900.0, count=3, kind="n_plus_one", plan="Seq Scan")
    found = viewer.get(f"{BASE}/slow").json()["slow"]
    assert [one["fingerprint"][0] for one in found] == ["b", "a"]
    assert found[0]["mean_ms"] == 300.0
    assert [one["kind"] for one in viewer.get(f"{BASE}/slow?kind=slow").json()["slow"]] == ["slow"]
    assert len(viewer.get(f"{BASE}/slow?limit=1").json()["slow"]) == 1
    assert post(operator, "slow/clear", {"alias": "default"}).json() == {"dropped": 2}
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.source, entry.after) == ("database.slow_clear", "api", {"rows": 2})
    assert slow.every() == []


def test_locks__a_session_that_is_not_there__is_404(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(alias: str, id: int, **by: Any) -> None:
        raise locks.NoSuchSession(f"no session {id} in the database of {alias}")

    monkeypatch.setattr(locks, "cancel", gone)
    assert "no session 7" in problem(post(operator, "locks/cancel", {"id": 7}), 404)["detail"]
    problem(post(operator, "locks/cancel", {"id": 0}), 400)


def test_backups__listed__with_how_they_were_verified(viewer: Client, backup: Path) -> None:
    [found] = viewer.get(f"{BASE}/backups").json()["backups"]
    assert (found["name"], found["state"], found["verified"]) == (backup.name, "ok", "restored")
    assert found["is_being_verified"] is False


def test_backups__taken_and_verified__begun_and_audited(
    admin: Client, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = backup.name
    begun: list[Any] = []
    monkeypatch.setattr(operations.backups, "start", lambda alias, by: begun.append((alias, by)) or 41)
    monkeypatch.setattr(operations.backup_checks, "start", lambda path: begun.append(path.name) or 42)
    answer = post(admin, "backups/take", {"alias": "default"})
    assert (answer.status_code, answer.json()) == (202, {"pid": 41})
    assert post(admin, "backups/verify", {"name": name}).json() == {"pid": 42}
    assert begun == [("default", "some-admin"), name]
    actions = list(AuditEntry.objects.order_by("id").values_list("action", "source"))
    assert actions == [("database.backup_begin", "api"), ("database.backup_verify", "api")]
    problem(post(admin, "backups/verify", {"name": f"../{name}"}), 404)


def test_backups__cannot_begin__is_409_with_the_way_out(
    admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(alias: str, by: str) -> int:
        raise BackupFailed("a backup of default is running already", "Wait for it.")

    monkeypatch.setattr(operations.backups, "start", refused)
    told = problem(post(admin, "backups/take", {}), 409)["detail"]
    assert told == "a backup of default is running already. Wait for it."
    assert not AuditEntry.objects.exists()


def test_asking__who_asks_the_same__waits_for_the_same_thread(
    away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PATIENCE_S", 0.2)
    calls: list[float] = []
    go_on = threading.Event()

    def ask() -> str:
        calls.append(time.monotonic())
        go_on.wait(60)
        return "here"

    questions = [asking.start(away.alias, "same", ask) for _ in range(3)]
    assert {question.answer().error for question in questions} == {"no answer within 0.2 s"}
    go_on.set()
    _wait_until(lambda: not asking._running)
    assert len(calls) == 1


def test_asking__slow_to_say_that_it_is_down__the_next_one_is_not_held_up(
    away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_SLOW_S", 0.1)
    monkeypatch.setattr(asking, "_MOMENT_S", 0.05)

    monkeypatch.setattr(asking, "PATIENCE_S", 60.0)
    monkeypatch.setattr(asking, "_KEPT_S", 60.0)
    go_on = threading.Event()

    def ask() -> None:
        time.sleep(0.2)
        raise OSError("nobody is there")

    def ask_longer() -> None:
        go_on.wait(60)

    assert asking.of(away.alias, "down", ask).error == "nobody is there"
    _wait_until(lambda: (away.alias, "down") in asking._slow)
    began = time.monotonic()
    assert asking.of(away.alias, "down", ask_longer).error == "nobody is there"
    assert time.monotonic() - began < 30
    go_on.set()


def _wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.service
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("server", ["postgresql_url", "mariadb_url"])
def test_asking__a_table_is_locked__the_statement_ends_and_the_session_keeps_no_limit(
    server: str, request: pytest.FixtureRequest, django_db_blocker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "STATEMENT_S", 0.3)
    url = f"{request.getfixturevalue(server)}?pool_max_size=2"
    limit = "SHOW statement_timeout" if server == "postgresql_url" else "SELECT @@max_statement_time"

    def ask(sql: str) -> Any:
        with connections[alias].cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0]

    def timed() -> tuple[str, Any]:
        within = str(ask(limit))
        began = time.monotonic()
        with pytest.raises(DatabaseError):
            ask("SELECT count(*) FROM auth_group")
        assert time.monotonic() - began < 60
        return within, connections[alias].connection

    with django_db_blocker.unblock(), second_database(url, app="auth") as alias:
        before = ask(limit)
        with transaction.atomic(alias) if server == "postgresql_url" else contextlib.nullcontext():
            with connections[alias].cursor() as cursor:
                cursor.execute("LOCK TABLE auth_group" + (" WRITE" if server == "mariadb_url" else ""))
            within, lent = asking.of(alias, "locked", timed).value or ("", None)
            if server == "mariadb_url":
                ask("SELECT 1")
                with connections[alias].cursor() as cursor:
                    cursor.execute("UNLOCK TABLES")
        assert within in ("300ms", "0.3")
        _wait_until(lambda: not asking._running)
        assert lent is not None
        for _ in range(4):  # both connections of the pool have their turn
            connections[alias].close()
            assert ask(limit) == before
