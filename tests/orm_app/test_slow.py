from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import psycopg.sql
import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.db import connection, connections
from django.template import engines
from django.test import Client, override_settings
from structlog.testing import capture_logs

from brain_project import views
from orm_app import slow, work
from orm_app.models import SlowQuery, User
from orm_app.router import _notice_write
from orm_app.slow import call_sites, capture, finding, flusher

pytestmark = pytest.mark.django_db
HERE = "tests/orm_app/test_slow.py"


@pytest.fixture(autouse=True)
def nothing_found() -> Iterator[None]:
    finding.findings.forget()
    yield
    finding.findings.forget()


def settings(**values: Any) -> Any:
    """A statement that a busy machine makes slow is no finding, unless the test asks for it."""
    return override_settings(BRAIN={"DATABASE": {"SLOW_QUERY_MS": None} | values})


def select(text: str = "SELECT 'secret', 42") -> None:
    with connection.cursor() as cursor:
        cursor.execute(text)
        cursor.fetchall()


def users(number: int) -> list[User]:
    made = [User(username=f"u{n}", email=f"u{n}@example.com", password="-") for n in range(number)]
    return User.objects.bulk_create(made)


# --- slow ------------------------------------------------------------------------------------------------------------


def test_slow__above_and_below_the_limit__one_line_with_call_site_and_unit() -> None:
    with settings(SLOW_QUERY_MS=0), work.unit("request", "GET /orders", "r1"), capture_logs() as logs:
        select()
    with settings(SLOW_QUERY_MS=60_000), capture_logs() as quiet:
        select()
    [line] = logs
    assert quiet == []
    assert (line["event"], line["log_level"], line["alias"]) == ("slow_query", "warning", "default")
    assert line["sql"] == "SELECT ?, ?"
    assert line["site"].startswith(f"{HERE}:")
    assert line["site"].endswith(" in select")
    assert (line["unit_kind"], line["unit"], line["unit_id"]) == ("request", "GET /orders", "r1")
    assert line["in_transaction"] is True
    assert "secret" not in str(logs)


def test_slow__off__nothing_is_found() -> None:
    with settings(SLOW_QUERY_MS=None), capture_logs() as logs:
        select()
    assert logs == []


def test_slow__a_change_of_the_schema__is_no_query() -> None:
    with settings(SLOW_QUERY_MS=0), capture_logs() as logs:
        select("CREATE TABLE slow_t (a integer)")
        select("DROP TABLE slow_t")
    assert logs == []


def test_slow__ignored_block__nothing_is_found() -> None:
    with settings(SLOW_QUERY_MS=0), slow.ignored(), capture_logs() as logs:
        select()
    assert logs == []


def test_slow__the_same_again__logged_once_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(finding, "monotonic", lambda: now[0])
    with settings(SLOW_QUERY_MS=0), capture_logs() as logs:
        for number in range(5):
            if number == 4:
                now[0] += finding.LOG_EVERY_S
            select(f"SELECT {number}")
    assert [line.get("suppressed") for line in logs] == [None, 3]


def test_slow__a_statement_that_fails__is_found_with_its_error() -> None:
    with settings(SLOW_QUERY_MS=0), pytest.raises(Exception, match="nowhere"), capture_logs() as logs:
        select("SELECT * FROM nowhere")
    assert logs[0]["error"] == "OperationalError"


def test_slow__every_connection_of_every_thread__is_watched_once(tmp_path: Any) -> None:
    found: list[Any] = []

    def look() -> None:
        other = connections["default"]
        other.connect()
        other.close()
        other.connect()
        found.extend(other.execute_wrappers)
        other.close()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [capture.watch]
    assert connection.execute_wrappers.count(capture.watch) == 1


def test_slow__a_wrapper_around_the_first_statement__stays_its_own(tmp_path: Any) -> None:
    fresh = connections.create_connection("default")
    seen = []

    def note(execute: Any, *rest: Any) -> Any:
        seen.append(1)
        return execute(*rest)

    with fresh.execute_wrapper(note), fresh.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert seen == [1]
    assert fresh.execute_wrappers == [capture.watch]
    fresh.close()


def test_n_plus_one__psycopgs_composed_sql__runs_and_is_not_counted() -> None:
    composed = psycopg.sql.SQL("SELECT {}").format(psycopg.sql.Literal("secret"))
    context = {"connection": connection, "cursor": None}
    with work.unit("request", "GET /", "r1") as unit:
        assert capture.watch(lambda *_: "rows", composed, None, False, context) == "rows"
    assert not unit.repeated


# --- stored ----------------------------------------------------------------------------------------------------------


def test_flush__several_times__rows_are_added_up_with_a_plan() -> None:
    with settings(SLOW_QUERY_MS=0), work.unit("job", "charge", "j1"):
        for _ in range(2):
            select("SELECT username FROM orm_app_user WHERE username = 'ann'")
        assert slow.flush() == 1
        select("SELECT username FROM orm_app_user WHERE username = 'bob'")
    # The statements stand in two lines of this test.
    assert slow.flush() == 1
    [row] = slow.every()
    assert (row.kind, row.alias, row.count, row.statements, row.most) == ("slow", "default", 3, 3, 1)
    assert row.sql == "SELECT username FROM orm_app_user WHERE username = ?"
    assert row.total_ms >= row.max_ms >= row.mean_ms > 0
    assert (row.unit_kind, row.unit_name, row.unit_id) == ("job", "charge", "j1")
    assert row.first_seen < row.last_seen
    assert "orm_app_user" in row.plan
    assert slow.get(row.fingerprint) == row
    assert "ann" not in str(SlowQuery.objects.values())
    assert slow.clear() == 1


def test_flush__itself__is_never_found() -> None:
    with settings(SLOW_QUERY_MS=0):
        select()
        slow.flush()
        assert slow.flush() == 0


def test_flush__the_table_is_away__dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError

    def fail(found: Any) -> None:
        raise OperationalError("away")

    monkeypatch.setattr("orm_app.slow.stored.add", fail)
    monkeypatch.setattr(flusher, "flusher", flusher.Flusher(is_wanted=False))
    before = finding.findings.dropped
    with settings(SLOW_QUERY_MS=0):
        select()
    with capture_logs() as logs:
        assert slow.flush() == 0
    assert finding.findings.dropped == before + 1
    assert [line["event"] for line in logs] == ["slow_queries_dropped"]


def test_flusher__in_tests__begins_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Any] = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: begun.append(thread))
    flusher.Flusher().start()
    assert not begun
    monkeypatch.delattr("django.test.utils._TestState.saved_data")
    flusher.Flusher().start()
    assert [thread.name for thread in begun] == ["slow-queries"]


def test_findings__more_than_fit__dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "_MOST_WAITING", 2)
    before = finding.findings.dropped
    with settings(SLOW_QUERY_MS=0):
        for text in ("SELECT 1", "SELECT 1, 2", "SELECT 1, 2, 3", "SELECT 5"):
            select(text)
    assert len(finding.findings.take()) == 2
    assert finding.findings.dropped == before + 1


def test_prune__too_many_or_too_old__the_last_seen_stay() -> None:
    from datetime import UTC, datetime, timedelta

    from orm_app.slow import stored

    now = datetime(2026, 11, 26, tzinfo=UTC)
    for number in range(15):
        at = now - timedelta(days=number)
        SlowQuery.objects.create(
            fingerprint=f"f{number}", kind="slow", alias="a", sql="", first_seen=at, last_seen=at
        )
    with settings(SLOW_RETENTION_DAYS=13.0):
        assert stored.prune(now) == 1
    with settings(SLOW_KEEP=10):
        assert stored.prune(now) == 4
    assert set(SlowQuery.objects.values_list("fingerprint", flat=True)) == {f"f{n}" for n in range(10)}


def test_every__filters_and_orders() -> None:
    from django.utils.timezone import now

    for fingerprint, kind, alias, total, count in (
        ("a", "slow", "x", 1.0, 9),
        ("b", "n_plus_one", "y", 5.0, 2),
    ):
        SlowQuery.objects.create(
            fingerprint=fingerprint, kind=kind, alias=alias, sql="", total_ms=total, count=count,
            first_seen=now(), last_seen=now(),
        )  # fmt: skip
    assert [row.fingerprint for row in slow.every()] == ["b", "a"]
    assert [row.fingerprint for row in slow.every(order="count")] == ["a", "b"]
    assert [row.fingerprint for row in slow.every("x")] == ["a"]
    assert [row.fingerprint for row in slow.every(kind="n_plus_one")] == ["b"]
    with pytest.raises(ValueError, match="order is one of"):
        slow.every(order="name")


def test_fork__a_child__begins_with_nothing_of_its_parent() -> None:
    with settings(SLOW_QUERY_MS=0):
        select()
    child = os.fork()
    if child == 0:
        os._exit(len(finding.findings.take()))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert len(finding.findings.take()) == 1


# --- N+1 -------------------------------------------------------------------------------------------------------------


def test_n_plus_one__a_loop_over_a_foreign_key__found_with_hint() -> None:
    for user in users(4):
        from django.contrib.admin.models import LogEntry

        LogEntry.objects.create(user=user, action_flag=1, object_repr="x")
    with settings(N_PLUS_ONE=3), capture_logs() as logs, work.unit("request", "GET /log", "r9"):
        for entry in LogEntry.objects.all():
            assert entry.user.username
    [line] = logs
    assert (line["event"], line["count"], line["unit"], line["unit_id"]) == (
        "n_plus_one",
        4,
        "GET /log",
        "r9",
    )
    assert line["site"].startswith(f"{HERE}:")
    assert 'LogEntry: select_related("user") or with_related("user")' in line["hint"]
    slow.flush()
    [row] = slow.every(kind="n_plus_one")
    assert (row.count, row.statements, row.most) == (1, 4, 4)


def test_n_plus_one__fewer_or_off__nothing() -> None:
    rows = users(3)
    with capture_logs() as logs:
        for limit in (4, None):
            with settings(N_PLUS_ONE=limit), work.unit("job", "x", "1"):
                for row in rows:
                    User.objects.get(pk=row.pk)
    assert logs == []


def test_n_plus_one__many_to_many_and_back__hints() -> None:
    [user] = users(1)
    group = Group.objects.create(name="g")
    with settings(N_PLUS_ONE=2), capture_logs() as logs:
        with work.unit("job", "many", "1"):
            for _ in range(2):
                list(user.groups.all())
        with work.unit("job", "reverse many", "2"):
            for _ in range(2):
                list(group.user_set.all())
        with work.unit("job", "reverse", "3"):
            for _ in range(2):
                list(user.logentry_set.all())
        with work.unit("job", "nothing that points there was read", "4"):
            for _ in range(2):
                User.objects.get(pk=user.pk)
    assert logs.pop()["hint"].startswith("load them with one statement")
    assert [line["hint"].split(" or ")[0] for line in logs] == [
        'User: prefetch_related("groups")',
        'Group: prefetch_related("user_set")',
        'User: prefetch_related("logentry_set")',
    ]


def test_n_plus_one__inserts_one_by_one__found_and_in_bulk_not() -> None:
    with settings(N_PLUS_ONE=3), capture_logs() as logs:
        with work.unit("job", "one by one", "1"):
            for number in range(3):
                Group.objects.create(name=f"g{number}")
        with work.unit("job", "bulk", "2"):
            Group.objects.bulk_create([Group(name=f"b{number}") for number in range(6)], batch_size=1)
    [line] = logs
    assert line["unit"] == "one by one"
    assert "bulk_insert" in line["hint"]


def test_n_plus_one__two_lines__each_counted_for_itself() -> None:
    users(1)
    with settings(N_PLUS_ONE=3), capture_logs() as logs, work.unit("job", "x", "1"):
        for _ in range(4):
            User.objects.count()
        for _ in range(2):
            User.objects.count()
    assert [line["count"] for line in logs] == [4]


def test_n_plus_one__savepoints__are_no_statements() -> None:
    from django.db import transaction

    with settings(N_PLUS_ONE=2), capture_logs() as logs, work.unit("job", "x", "1") as unit:
        for _ in range(3):
            with transaction.atomic():
                pass
        assert unit.repeated == {}
    assert logs == []


def test_n_plus_one__chunks__are_meant() -> None:
    from orm_app import db

    users(6)
    with settings(N_PLUS_ONE=2), capture_logs() as logs, work.unit("job", "x", "1"):
        assert len([row for rows in db.query(User).chunk(1) for row in rows]) == 6
    assert logs == []


def test_n_plus_one__in_a_template__its_line_is_the_call_site() -> None:
    rows = users(3)
    text = "{% for user in users %}\n{% for group in user.groups.all %}{{ group }}{% endfor %}\n{% endfor %}"
    template = engines["django"].from_string(text)
    with settings(N_PLUS_ONE=3), capture_logs() as logs, work.unit("request", "x", "1"):
        template.render({"users": rows})
    assert [line["site"] for line in logs] == ["template <template>:2"]


@pytest.mark.django_db(transaction=True)
async def test_n_plus_one__awaited_statements__the_awaiting_line_is_the_call_site() -> None:
    async def ask() -> None:
        for _ in range(3):
            await User.objects.acount()

    with settings(N_PLUS_ONE=3), capture_logs() as logs, work.unit("request", "x", "1"):
        await asyncio.gather(ask(), asyncio.sleep(0))
    [line] = logs
    assert line["count"] == 3
    assert line["site"].startswith(f"{HERE}:")
    assert line["site"].endswith(" in ask")


@pytest.mark.django_db(transaction=True)
async def test_slow__awaited_by_our_builder__the_awaiting_line_is_the_call_site() -> None:
    from orm_app import db

    with settings(SLOW_QUERY_MS=0), capture_logs() as logs:
        await db.query(User).count()
        await sync_to_async(select)()
    assert [line["site"].rpartition(" ")[2] for line in logs if line["event"] == "slow_query"] == [
        "test_slow__awaited_by_our_builder__the_awaiting_line_is_the_call_site",
        "select",
    ]


def test_slow__the_platforms_own_statement__its_innermost_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from foundation import audit

    monkeypatch.setitem(call_sites._kinds, __file__, call_sites._LIBRARY)
    with settings(SLOW_QUERY_MS=0), capture_logs() as logs:
        audit.record(actor=None, action="a.b", target="x:1", source="system")
    assert {line["site"].partition("/")[0] for line in logs} == {"foundation"}


def test_slow__a_packages_own_view__no_middleware_is_its_call_site(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(call_sites._kinds, __file__, call_sites._LIBRARY)
    monkeypatch.setattr("brain_project.views.health.gather", lambda: select() or [])
    monkeypatch.setitem(call_sites._kinds, views.__file__, call_sites._LIBRARY)
    with settings(SLOW_QUERY_MS=0), connection.execute_wrapper(_notice_write), capture_logs() as logs:
        client.get("/readyz")
    [line] = [line for line in logs if line.get("sql") == "SELECT ?, ?"]
    assert (line["site"], line["unit"]) == ("", "GET /readyz")


def test_call_site__script_of_an_environment_in_the_project__is_no_line_of_the_project(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(call_sites, "_SCRIPTS", f"{call_sites._BASE}.venv/bin/")
    assert call_sites._kind(f"{call_sites._BASE}.venv/bin/gunicorn") == call_sites._LIBRARY
    assert call_sites._kind(f"{call_sites._BASE}shop/views.py") == call_sites._PROJECT


def test_no_n_plus_one__a_loop_and_none__assertion_with_the_line() -> None:
    rows = users(2)
    with pytest.raises(AssertionError, match=rf"2 times from {HERE}:\d+ in .*: SELECT"), slow.no_n_plus_one():
        for row in rows:
            User.objects.get(pk=row.pk)
    with slow.no_n_plus_one():
        list(User.objects.all())
    with settings(N_PLUS_ONE=None), pytest.raises(AssertionError), slow.no_n_plus_one():
        for row in rows:
            User.objects.get(pk=row.pk)


def test_no_n_plus_one__the_block_raises__its_own_error() -> None:
    with pytest.raises(ZeroDivisionError), slow.no_n_plus_one():
        User.objects.count()
        raise ZeroDivisionError


def test_families__findings__counted_by_alias() -> None:
    before = _sample("brain_database_slow_queries_total")
    with settings(SLOW_QUERY_MS=0):
        select()
    assert _sample("brain_database_slow_queries_total") == before + 1


def _sample(name: str) -> float:
    found = {
        sample.name: sample.value
        for family in slow.families()
        for sample in family.samples
        if sample.labels in ({"alias": "default"}, {})
    }
    return found.get(name, 0.0)
