from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from foundation import roles
from foundation.models import AuditEntry
from orm_app import (
    backup_checks,
    checkups,
    conf,
    locks,
    migration_gate,
    migration_records,
    operations,
    pools,
    replicas,
    slow,
    standing,
)
from orm_app.admin import frame, migrations
from orm_app.admin import locks as locks_page
from orm_app.backups import BackupFailed
from orm_app.checkup_findings import Finding
from orm_app.explain import CannotExplain
from orm_app.locks import Locks, Session
from orm_app.migration_lint.changes import Finding as Lint
from orm_app.migration_standing import Standing
from orm_app.models import SlowQuery, User
from tests.foundation.databases import second_database
from tests.foundation.people import client_of

from .conftest import Away

pytestmark = pytest.mark.django_db

PAGES = ("overview", "overview-live", *(name for name, _ in frame.TABS))
LIVE = tuple(f"{name}-live" for name, _ in frame.TABS if name != "migrations")


@pytest.fixture
def viewer() -> Client:
    return client_of(roles.VIEWER)


@pytest.fixture
def operator() -> Client:
    return client_of(roles.OPERATOR)


@pytest.fixture
def admin() -> Client:
    return client_of(roles.ADMIN)


def at(page: str, /, **wanted: Any) -> str:
    return frame.link(page, **wanted)


def text(answer: Any) -> str:
    assert answer.status_code == 200, answer
    found: str = answer.content.decode()
    return found


def messages(answer: Any) -> list[str]:
    return [str(told) for told in answer.context["messages"]]


@pytest.mark.parametrize("name", [*PAGES, *LIVE])
def test_pages__by_role__for_viewers_and_nobody_else(name: str) -> None:
    assert client_of(roles.VIEWER).get(at(name)).status_code == 200
    assert client_of(None).get(at(name)).status_code == 403
    assert Client().get(at(name)).headers["Location"].startswith("/admin/login/")


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("slow-clear", roles.OPERATOR),
        ("session", roles.OPERATOR),
        ("explain", roles.ADMIN),
        ("backup-begin", roles.ADMIN),
    ],
)
def test_pages__that_change__are_not_for_those_below(
    name: str, role: str, viewer: Client, operator: Client
) -> None:
    assert viewer.get(at(name)).status_code == 403
    assert viewer.post(at(name), {"alias": "default"}).status_code == 403
    if role == roles.ADMIN:
        assert operator.get(at(name)).status_code == 403
        assert operator.post(at(name), {"alias": "default"}).status_code == 403


def test_menu__each_entry__leads_somewhere_for_a_viewer(viewer: Client) -> None:
    from brain_project.admin_menu import GROUPS

    links = [reverse(name) for _, _, name in dict(GROUPS)["Database"]]
    for link in links:
        found = text(viewer.get(link))
        assert all(f'href="{other}"' in found for other in links)


@pytest.mark.parametrize("name", [name for name, _ in frame.TABS])
def test_pages__unknown_alias__is_404(name: str, viewer: Client) -> None:
    assert viewer.get(at(name, alias="nobody")).status_code == 404


@pytest.mark.parametrize("name", ["overview", "locks", "migrations", "pools", "slow", "backups", "health"])
def test_pages__a_database_that_is_away__stand_within_four_seconds_and_say_so(
    name: str, viewer: Client, away: Away
) -> None:
    found = text(away.within_four_seconds(lambda: viewer.get(at(name, alias=away.alias))))
    assert away.password not in found
    if name in ("overview", "locks", "migrations", "health"):
        assert "refused" in found or "couldn&#x27;t get a connection" in found


@pytest.mark.parametrize("name", [*PAGES, *LIVE])
def test_pages__looked_at__in_a_bounded_number_of_queries(
    name: str, viewer: Client, django_assert_max_num_queries: Any
) -> None:
    most = (
        100 if name.startswith("health") else 25
    )  # a look has its limits set and taken back, a statement each
    viewer.get(at(name))
    with django_assert_max_num_queries(most):
        viewer.get(at(name))


def test_overview__several_databases__each_with_pool_migrations_and_lag(
    viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = standing.of("default")
    others = [
        replace(
            one, alias="main", pool={"size": 4, "idle": 1, "waiting": 2, "max": 4}, version="15.4 (Debian)"
        ),
        replace(one, alias="copy", state="degraded", detail="3 migrations are pending", pending_migrations=3),
        replace(one, alias="gone", state="down", detail="<b>refused", version=None, pending_migrations=None),
    ]
    lagging = replicas.State("copy", "main", usable=False, lag_s=12.0, reason="it is behind")
    monkeypatch.setattr(standing, "every", lambda: others)
    monkeypatch.setattr(replicas, "states", lambda: [lagging])
    found = text(viewer.get(at("overview-live")))
    assert "3 / 4" in found
    assert "2 wait" in found
    assert "3 pending" in found
    assert "12 s" in found
    assert "no reads: it is behind" in found
    assert "&lt;b&gt;refused" in found


def test_health__findings__the_worst_first_with_what_to_do(
    viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = checkups.Checkup(
        "default", "postgresql", "15.4", "bad",
        [
            Finding("connection", "ok", "answers in 1 ms"),
            Finding("sequences", "bad", "<b>is nearly full", "Make it a bigint & soon."),
            Finding("cache", "warn", "80 % came from memory", "Raise it."),
        ],
        size_bytes=4 * 2**20, tables=[checkups.Table("orders", 12_345, 2**20), checkups.Table("users", None, None)],
    )  # fmt: skip
    monkeypatch.setattr(checkups, "of", lambda alias: seen)
    found = text(viewer.get(at("health-live")))
    assert "1 bad, 1 to look at" in found
    assert found.index("&lt;b&gt;is nearly full") < found.index("80 % came") < found.index("answers in 1 ms")
    assert "Make it a bigint &amp; soon." in found
    assert "12,345" in found
    assert "width:25%" in found


def test_pools__of_this_process__gauges_and_a_label_that_says_so(
    viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = pools.PoolStats(
        "default", "mysql", min_size=1, max_size=4, size=4, available=0, waiting=3, requests_num=10, queued_num=5, wait_ms=500,
        errors_num=2, usage_ms=100, connections_num=4, connections_errors=0, lost_num=1, bad_num=0, dirty_num=7,
    )  # fmt: skip
    monkeypatch.setattr(pools, "stats", lambda alias: [full])
    found = text(viewer.get(at("pools")))
    assert "4 in use, 0 idle, at most 4" in found
    assert "Of process" in found
    assert "50 %" in found
    assert "100 ms each" in found
    assert "session was changed" in found


def test_pools__without_one__says_why(viewer: Client) -> None:
    if connections["default"].vendor == "sqlite":
        assert "A SQLite file needs none" in text(viewer.get(at("pools")))


# --- migrations ------------------------------------------------------------------------------------------------------


@pytest.fixture
def behind(tmp_path: Path, django_db_blocker: Any) -> Iterator[str]:
    """An alias where only foundation's first migrations are applied."""
    with django_db_blocker.unblock(), second_database(f"sqlite:///{tmp_path}/s.sqlite3") as alias:
        call_command("migrate", "foundation", "0002", database=alias, verbosity=0)
        yield alias


def test_migrations__all_applied__with_when(viewer: Client) -> None:
    found = text(viewer.get(at("migrations")))
    assert "Nothing to migrate." in found
    assert "0001_initial" in found
    assert f"{timezone.now():%Y-%m-%d}" in found


def test_migrations__pending__plan_with_sql_lint_beside_it_and_the_command(
    viewer: Client, behind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = a_lint("drop-column", "error", "drops <b>", "Remove it & wait.")
    allowed = a_lint("python-code", "warning", "runs Python", "No.", allowed="a small table")
    monkeypatch.setattr(migration_gate, "findings", lambda *_, **__: [refused, allowed])
    found = text(viewer.get(at("migrations", alias=behind)))
    assert f"./brain database migrate --database {behind}" in found
    assert "CREATE TABLE" in found
    assert "1 error<" in found
    assert "drops &lt;b&gt;" in found
    assert "Safe: Remove it &amp; wait." in found
    assert "Allowed: a small table" in found


def test_refused__as_the_gate_would__errors_that_nobody_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = (
        a_lint("drop-column", "error"),
        a_lint("drop-table", "error", allowed="unused"),
        a_lint("python-code", "warning"),
    )
    standing = Standing("default", (), (), findings, ())
    monkeypatch.setattr(migration_gate, "mode", lambda: migration_gate.REFUSE)
    assert standing.refused == 0  # the platform's own only warn
    monkeypatch.setattr(conf.conf, "_value", replace(conf.conf(), MIGRATE_LINT_WARN_ONLY=()))
    assert standing.refused == 1
    monkeypatch.setattr(migration_gate, "mode", lambda: migration_gate.WARN)
    assert standing.refused == 0


def a_lint(rule: str, level: str, message: str = "", rewrite: str = "", allowed: str = "") -> Lint:
    key = ("foundation", "0003_audit_entry_append_only")
    return Lint(rule, level, *key, "sqlite", message, rewrite, allowed)


def test_migrations__half_way__reports_what_is_committed_and_the_way_on(viewer: Client, behind: str) -> None:
    connection = connections[behind]
    model: Any = migration_records.progress_model()
    migration_records.ensure(connection, model)
    model._default_manager.using(behind).create(
        app="foundation", name="0002_role_groups", is_backwards=True, done='["RunPython: make <groups>"]',
        error="Duplicate entry 'ann@example.com' for key 'email'\nmore",
    )  # fmt: skip
    found = text(viewer.get(at("migrations", alias=behind)))
    assert "<strong>foundation.0002_role_groups</strong> broke while it was taken back" in found
    assert "make &lt;groups&gt;" in found
    assert f"./brain database migrate foundation 0001_audit_entry --database {behind} --resume" in found
    assert "--start-over foundation.0002_role_groups" in found
    assert "ann@example.com" not in found
    assert "more" not in found.partition("Duplicate entry")[2][:80]


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (
            "Duplicate entry 'ann@example.com' for key 'user.email'",
            "Duplicate entry '…' for key 'user.email'",
        ),
        ("Unknown column 'colour' in 'field list'", "Unknown column 'colour' in '…'"),
        (
            "duplicate key value violates\nDETAIL:  Key (email)=(ann@x) already exists.",
            "duplicate key value violates",
        ),
        ("", ""),
    ],
)
def test_without_values__a_servers_error__keeps_names_alone(error: str, shown: str) -> None:
    assert migrations.without_values(error) == shown


# --- locks -----------------------------------------------------------------------------------------------------------


def a_session(
    id: int, blocked_by: tuple[int, ...] = (), blocks: tuple[int, ...] = (), **values: Any
) -> Session:
    given: dict[str, Any] = {
        "user": "brain", "application": "", "client": "", "state": "waiting" if blocked_by else "active", "sql": "SELECT ?",
        "waits_for": "", "waiting_s": 2.0 if blocked_by else None, "statement_s": 2.0, "transaction_s": 3.0, "is_ours": False,
    }  # fmt: skip
    return Session(id=id, blocked_by=blocked_by, blocks=blocks, **(given | values))


def test_tree__chain_and_two_roots__each_once_below_whom_it_waits_for() -> None:
    sessions = [a_session(3, (2,)), a_session(2, (1,)), a_session(1), a_session(9), a_session(4, (2, 9))]
    assert [(one.id, depth) for one, depth in locks_page.tree(sessions)] == [
        (1, 0), (2, 1), (3, 2), (4, 2), (9, 0),
    ]  # fmt: skip


def test_tree__a_deadlock_or_a_holder_that_is_not_listed__nobody_is_left_out() -> None:
    circle = [a_session(1, (2,)), a_session(2, (1,)), a_session(3, (77,))]
    assert sorted(one.id for one, _ in locks_page.tree(circle)) == [1, 2, 3]


def test_locks__shown__without_actions_for_viewers(
    viewer: Client, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Locks(
        "default", "postgresql", [a_session(2, (1,)), a_session(1, blocks=(2,), sql="<i>")], ["a note"]
    )
    monkeypatch.setattr(locks, "every", lambda alias: found)
    shown = text(viewer.get(at("locks-live")))
    assert "holds up 1" in shown
    assert "waits for 1: " in shown
    assert "&lt;i&gt;" in shown
    assert "A note." in shown
    assert "session-1" not in shown
    assert "session-1" in text(operator.get(at("locks-live")))
    page = text(operator.get(at("session", id=1)))
    assert "Cancel its statement?" in page
    assert "End the session?" not in page


def test_session__by_role__operators_cancel_and_admins_end(
    operator: Client, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Any] = []
    monkeypatch.setattr(locks, "cancel", lambda alias, id, **by: done.append(("cancel", id, by["source"])))
    monkeypatch.setattr(locks, "end", lambda alias, id, **by: done.append(("end", id, by["source"])))
    form = {"alias": "default", "id": "5"}
    answer = operator.post(at("session"), form | {"what": "cancel"}, follow=True)
    assert messages(answer) == ["Session 5 was told to stop its statement."]
    assert operator.post(at("session"), form | {"what": "end"}).status_code == 403
    assert operator.post(at("session"), form | {"what": "drop"}).status_code == 403
    assert messages(admin.post(at("session"), form | {"what": "end"}, follow=True)) == ["Session 5 is ended."]
    assert done == [("cancel", 5, "admin"), ("end", 5, "admin")]


@pytest.mark.service
@pytest.mark.django_db(transaction=True)
def test_locks__postgresql__who_blocks_is_seen_and_ended(
    admin: Client, postgresql_url: str, django_db_blocker: Any
) -> None:
    with (
        django_db_blocker.unblock(),
        second_database(postgresql_url, app="auth") as alias,
        _blocked(alias) as (holder, error),
    ):
        found = text(admin.get(at("locks-live", alias=alias)))
        assert f'id="session-{holder}"' in found
        assert "holds up 1" in found
        page = text(admin.get(at("session", alias=alias, id=holder)))
        assert "1 waits for it" in page
        form = {"alias": alias, "id": str(holder), "what": "end"}
        assert messages(admin.post(at("session"), form, follow=True)) == [f"Session {holder} is ended."]
        assert error.wait(60)
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.target_id, entry.after["session"]) == ("database.session_end", alias, holder)


@contextlib.contextmanager
def _blocked(alias: str) -> Iterator[tuple[int, threading.Event]]:
    """A session that holds a table, and one that waits for it; the event: it waits no longer."""
    import psycopg

    settings = connections[alias].settings_dict
    where = {
        "host": settings["HOST"],
        "port": settings["PORT"],
        "user": settings["USER"],
        "dbname": settings["NAME"],
    }
    with psycopg.connect(**where) as holder, psycopg.connect(**where) as waiter:
        holder.execute("LOCK TABLE auth_group")
        free = threading.Event()

        def wait() -> None:
            with contextlib.suppress(psycopg.Error):
                waiter.execute("SELECT count(*) FROM auth_group")
            free.set()

        thread = threading.Thread(target=wait)
        thread.start()
        pid = holder.info.backend_pid
        _wait_until(lambda: any(one.id == pid and one.blocks for one in locks.every(alias).sessions))
        yield pid, free
        thread.join(60)
        with contextlib.suppress(psycopg.Error):
            holder.rollback()


def _wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- slow queries and plans ------------------------------------------------------------------------------------------


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


def test_slow__sorted_and_filtered__with_call_site_and_unit(viewer: Client) -> None:
    slow_row(
        "a" * 16,
        sql='SELECT "a"',
        total_ms=900.0,
        max_ms=10.0,
        count=90,
        call_site="shop/views.py:12 in cart",
    )
    slow_row("b" * 16, sql='SELECT "b"', total_ms=500.0, max_ms=400.0, count=2, unit_name="GET /cart")
    slow_row("c" * 16, sql='SELECT "c"', total_ms=100.0, count=1, most=40, kind="n_plus_one")
    slow_row("d" * 16, sql='SELECT "other"', alias="elsewhere")
    found = text(viewer.get(at("slow-live")))
    assert found.index("&quot;a&quot;") < found.index("&quot;b&quot;")
    assert "shop/views.py:12 in cart" in found
    assert "GET /cart" in found
    assert "N+1: up to 40" in found
    assert "other" not in found
    longest = text(viewer.get(at("slow-live", order="max")))
    assert longest.index("&quot;b&quot;") < longest.index("&quot;a&quot;")
    repeated = text(viewer.get(at("slow", kind="n_plus_one", order="nonsense")))
    assert "&quot;c&quot;" in repeated
    assert "&quot;a&quot;" not in repeated
    assert "Clear…" not in repeated


def test_slow_query__its_page__hint_unit_and_the_plan_with_warnings(viewer: Client) -> None:
    slow_row(
        "a" * 16, sql="SELECT <b>", hint="select_related(&)", unit_kind="request", unit_id="01H-unit", plan="SCAN big",
        plan_at=timezone.now(), count=2, total_ms=10,
    )  # fmt: skip
    found = text(viewer.get(at("slow-query", fingerprint="a" * 16)))
    assert "SELECT &lt;b&gt;" in found
    assert "select_related(&amp;)" in found
    assert "01H-unit" in found
    assert "SCAN big" in found
    assert viewer.get(at("slow-query", fingerprint="f" * 16)).status_code == 404
    slow_row("b" * 16)
    assert "No plan was stored with it" in text(viewer.get(at("slow-query", fingerprint="b" * 16)))


def test_slow__cleared__asked_first_then_audited(operator: Client) -> None:
    slow_row("a" * 16)
    assert "Drop the slow and repeated statements of default?" in text(operator.get(at("slow-clear")))
    assert slow.every("default")
    assert messages(operator.post(at("slow-clear"), {"alias": "default"}, follow=True)) == [
        "1 dropped: default begins anew."
    ]
    assert slow.every("default") == []
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.source, entry.target_id) == ("database.slow_clear", "admin", "default")
    log = operator.get(at("slow")).context["audit"]
    assert operator.get(log).context["cl"].result_count == 1
    assert operator.get(f"{log}x").context["cl"].result_count == 0


def test_explain__a_select__plan_and_an_entry_without_its_values(admin: Client) -> None:
    sql = "SELECT * FROM orm_app_user WHERE email = 'secret@example.com' AND id > 42"
    found = text(admin.post(at("explain"), {"alias": "default", "sql": sql}))
    assert "orm_app_user" in found.partition('id="plan"')[2]
    entry = AuditEntry.objects.get()
    assert entry.action == "database.explain"
    assert entry.after["analyze"] is False
    assert "secret" not in str(entry.after)
    assert "42" not in entry.after["sql"]


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("DELETE FROM orm_app_user", "only a statement that reads"),
        ("/* SELECT */ update orm_app_user set id = 1", "only a statement that reads"),
        ("SELECT 1; DROP TABLE orm_app_user", "one statement, not 2"),
        ("SELECT nothing FROM orm_app_user", "nothing"),
        ("SELECT 1 INTO OUTFILE '/tmp/x'", "leave INTO out"),
    ],
)
def test_explain__what_it_refuses__says_why_and_changes_nothing(sql: str, why: str, admin: Client) -> None:
    found = text(admin.post(at("explain"), {"alias": "default", "sql": sql}))
    assert why in found.partition('role="alert"')[2]
    assert 'id="plan"' not in found
    assert User.objects.exists()


def test_explain__what_mysql_runs_of_a_comment__refused() -> None:
    with pytest.raises(CannotExplain, match="runs on MySQL"):
        operations._refuse_into("SELECT 1 /*!50000 INTO OUTFILE '/x' */", "mysql")
    operations._refuse_into("SELECT 'into' /* into */, `into` FROM t", "mysql")


@pytest.mark.service
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("server", ["postgresql_url", "mariadb_url"])
def test_explain__analyzed__runs_read_only(
    server: str, admin: Client, request: pytest.FixtureRequest, django_db_blocker: Any
) -> None:
    url = request.getfixturevalue(server)
    with django_db_blocker.unblock(), second_database(url, app="auth") as alias:
        form = {"alias": alias, "analyze": "on"}
        found = text(admin.post(at("explain"), form | {"sql": "SELECT * FROM auth_group WHERE id > 3"}))
        assert "auth_group" in found.partition('id="plan"')[2]
        if server == "postgresql_url":
            writes = "WITH gone AS (DELETE FROM auth_group RETURNING 1) SELECT * FROM gone"
            assert "read-only transaction" in text(admin.post(at("explain"), form | {"sql": writes}))
            admin.post(at("explain"), form | {"sql": "SELECT pg_advisory_lock(42)"})
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT count(*) FROM auth_group")
                assert cursor.fetchone()[0] == 3
                cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42")
                assert cursor.fetchone()[0] == 0
        connections[alias].close()


# --- backups ---------------------------------------------------------------------------------------------------------


def test_backups__listed__size_age_and_how_they_were_verified(viewer: Client, backup: Path) -> None:
    found = text(viewer.get(at("backups-live")))
    assert backup.name in found
    assert "restored and compared" in found
    assert "5 B" in found
    assert "The newest one is" in found
    assert "Take a backup…" not in text(viewer.get(at("backups")))


def test_backup__its_page__restore_is_a_command_and_only_admins_act(
    viewer: Client, operator: Client, admin: Client, backup: Path
) -> None:
    address = at("backup", name=backup.name)
    found = text(viewer.get(address))
    assert f"./brain database restore {backup} --database default" in found
    assert "Delete it" not in found
    assert "Delete it" in text(admin.get(address))
    for what in ("verify", "delete"):
        assert viewer.post(address, {"what": what}).status_code == 403
        assert operator.post(address, {"what": what, "confirm": backup.name}).status_code == 403
    assert admin.get(at("backup", name="../../etc/passwd")).status_code == 404
    assert backup.exists()


def test_backup__deleted__once_its_name_is_written_and_audited(admin: Client, backup: Path) -> None:
    address = at("backup", name=backup.name)
    answer = admin.post(address, {"what": "delete", "confirm": "yes"}, follow=True)
    assert "Nothing was deleted" in messages(answer)[0]
    assert backup.exists()
    answer = admin.post(address, {"what": "delete", "confirm": backup.name}, follow=True)
    assert messages(answer) == [f"{backup.name} is deleted."]
    assert list(backup.parent.iterdir()) == []
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.before["file"]) == ("database.backup_delete", backup.name)


def test_backup__begun__in_a_process_of_its_own_and_audited(
    admin: Client, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Back default up now?" in text(admin.get(at("backup-begin")))
    monkeypatch.setattr(operations.backups, "start", lambda alias, by: 41)
    answer = admin.post(at("backup-begin"), {"alias": "default"}, follow=True)
    assert "A backup of default has begun." in messages(answer)[0]
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.after) == ("database.backup_begin", {"pid": 41})

    def refused(alias: str, by: str) -> int:
        raise BackupFailed("no room", "Free some.")

    monkeypatch.setattr(operations.backups, "start", refused)
    answer = admin.post(at("backup-begin"), {"alias": "default"}, follow=True)
    assert messages(answer) == ["no room. Free some."]
    assert AuditEntry.objects.count() == 1


def test_backup_check__in_a_process_of_its_own__running_then_what_it_found(
    backup: Path, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = backup_checks.start

    def held(path: Path) -> int:
        pid = start(path)
        os.kill(pid, signal.SIGSTOP)  # or it may be over before it is looked at
        return pid

    monkeypatch.setattr(backup_checks, "start", held)
    address = at("backup", name=backup.name)
    answer = admin.post(address, {"what": "verify"}, follow=True)
    [child] = backup_checks._started
    try:
        assert "is being restored beside default" in messages(answer)[0]
        assert "Being verified" in text(answer)
        with pytest.raises(BackupFailed, match="in use"):
            operations.delete_backup(backup.name, actor="ann", source="cli")
        with pytest.raises(BackupFailed, match="being verified already"):
            backup_checks.start(backup)
    finally:
        child.send_signal(signal.SIGCONT)
    child.wait(300)
    found = backup_checks.last(backup)
    assert found is not None
    assert found.error  # five bytes are no database
    assert found.error in text(admin.get(address)).replace("&#x27;", "'")
