from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import DatabaseError, connections
from django.test import override_settings

from orm_app import db, explain, slow
from orm_app.models import User
from orm_app.plan_reading import warnings_of_mysql, warnings_of_postgresql
from tests.orm_app.migrating import alias_of

ROWS = 20_000
NUMBERS = {
    "sqlite": f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) SELECT i, i % 100, 'x' FROM n",
    "postgresql": f"SELECT i, i % 100, 'x' FROM generate_series(1, {ROWS}) i",
    "mysql": f"SELECT seq, seq % 100, 'x' FROM seq_1_to_{ROWS}",
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def alias(
    request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: Any, tmp_path_factory: Any
) -> Iterator[str]:
    """A database with one table of many rows, by `id` and without an index on `kind`."""
    if request.param == "mariadb":
        pytest.importorskip("MySQLdb")
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('explain')}/db.sqlite3"
    else:
        url = request.getfixturevalue(f"{request.param}_url")
    with django_db_blocker.unblock(), alias_of(url) as name, connections[name].cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS item")
        cursor.execute("CREATE TABLE item (id integer PRIMARY KEY, kind integer, note varchar(50))")
        cursor.execute(f"INSERT INTO item (id, kind, note) {NUMBERS[connections[name].vendor]}")
        cursor.execute({"mysql": "ANALYZE TABLE item"}.get(connections[name].vendor, "ANALYZE item"))
        yield name
        cursor.execute("DROP TABLE item")


def vendor(alias: str) -> str:
    return connections[alias].vendor


def count(alias: str) -> int:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM item")
        return int(cursor.fetchone()[0])


@pytest.mark.service
def test_of__by_key_and_without_an_index__the_second_is_warned_about(alias: str) -> None:
    by_key = explain.of(alias, "SELECT note FROM item WHERE id = %s", [5])
    assert by_key.text
    assert by_key.steps
    assert by_key.warnings == []
    scan = explain.of(alias, "SELECT note FROM item WHERE kind = %s", [5])
    [warning] = scan.warnings
    assert "all of item" in warning
    if vendor(alias) == "postgresql":
        assert "an index on item (kind) would find them" in warning


@pytest.mark.service
def test_of__sorting_many__named(alias: str) -> None:
    found = explain.of(alias, "SELECT note FROM item WHERE id > 1 ORDER BY note, kind").warnings
    if vendor(alias) != "postgresql":  # there only an analyzed plan says that it went to the disk
        assert any("an index in that order" in warning for warning in found)


@pytest.mark.service
def test_of__a_writing_statement__does_not_run(alias: str) -> None:
    plan = explain.of(alias, "DELETE FROM item WHERE kind = 5")
    assert plan.text
    assert count(alias) == ROWS


@pytest.mark.service
def test_of__analyze__runs_and_is_taken_back(alias: str) -> None:
    sql = "DELETE FROM item WHERE kind = 5"
    if vendor(alias) == "sqlite":
        with pytest.raises(explain.CannotExplain, match="SQLite cannot analyze"):
            explain.of(alias, sql, analyze=True)
        return
    plan = explain.of(alias, sql, analyze=True)
    assert plan.is_analyzed
    assert any(step.actual_rows is not None for step in plan.steps)
    assert count(alias) == ROWS


@pytest.mark.service
@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT 1; DELETE FROM item", "one statement, not 2"),
        ("SELECT 1 /* ; */ ; /* */ DROP TABLE item", "one statement, not 2"),
        ("DROP TABLE item", "no plan of DROP"),
        ("ANALYZE SELECT 1", "no plan of ANALYZE"),
        ("", "one statement, not 0"),
        ("SELECT 'open", "never closed"),
    ],
    ids=["two", "hidden", "drop", "analyze", "none", "open"],
)
def test_of__what_is_not_one_statement_with_a_plan__refused(alias: str, sql: str, reason: str) -> None:
    with pytest.raises(explain.CannotExplain, match=reason):
        explain.of(alias, sql)
    assert count(alias) == ROWS


@pytest.mark.service
def test_of__takes_too_long__ends_in_time(alias: str) -> None:
    if vendor(alias) == "sqlite":
        pytest.skip("nothing runs there")
    sleep = "SELECT pg_sleep(20)" if vendor(alias) == "postgresql" else "SELECT SLEEP(20) FROM item"
    with pytest.raises(explain.CannotExplain, match="did not end within 0.3 s"):
        explain.of(alias, sleep, analyze=True, timeout_s=0.3)
    assert count(alias) == ROWS


@pytest.mark.service
def test_of__the_engine_refuses__its_error(alias: str) -> None:
    with pytest.raises(DatabaseError):
        explain.of(alias, "SELECT nothing FROM nowhere")
    assert count(alias) == ROWS


@pytest.mark.service
@pytest.mark.parametrize(
    "makes",
    [lambda: User.objects.filter(username="ann"), lambda: db.query(User).where_eq("username", "ann")],
    ids=["queryset", "query"],
)
@pytest.mark.django_db
def test_of__a_query_of_models__explained(makes: Any) -> None:
    plan = explain.of("default", makes())
    assert "orm_app_user" in plan.text
    with pytest.raises(explain.CannotExplain, match="sends nothing"):
        explain.of("default", User.objects.none())


@pytest.mark.service
def test_slow_plan__of_another_database__masked(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the flusher's thread does for a statement that was slow here."""
    from orm_app.slow import finding, planning, stored

    kept: dict[str, str] = {}
    monkeypatch.setattr(stored, "planned_since", lambda prints, moment: set())
    monkeypatch.setattr(stored, "keep_plan", kept.__setitem__)
    finding.findings.forget()
    with override_settings(BRAIN={"DATABASE": {"SLOW_QUERY_MS": 0}}), connections[alias].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM item WHERE note = %s AND kind = 77", ["hunter2"])
    [found] = finding.findings.take()
    assert found.rows in (1, None)
    planning.keep([found])
    assert "item" in kept[found.fingerprint]
    assert "hunter2" not in kept[found.fingerprint]
    assert "77" not in kept[found.fingerprint]
    assert found.raw is None


@pytest.mark.django_db
def test_of_slow__stored_and_not__plan_or_reason() -> None:
    slow.finding.findings.forget()  # what other tests of this process left
    with override_settings(BRAIN={"DATABASE": {"SLOW_QUERY_MS": 0}}):
        list(User.objects.filter(username="ann"))
    slow.flush()
    [row] = [one for one in slow.every() if "username" in one.sql]
    assert explain.of_slow(row.fingerprint).text == row.plan
    with pytest.raises(explain.CannotExplain, match="no slow statement"):
        explain.of_slow("nothing")


def test_warnings_of_postgresql__analyzed__disk_rows_and_estimates() -> None:
    plan = """Sort  (cost=1.0..2.0 rows=10 width=4) (actual time=1.000..2.000 rows=50000 loops=1)
  Sort Method: external merge  Disk: 1234kB
  ->  Seq Scan on orders  (cost=0.00..9.00 rows=10 width=4) (actual time=0.1..0.2 rows=50000 loops=1)
        Filter: ((state)::text = 'new'::text)
        Rows Removed by Filter: 90000"""
    found = warnings_of_postgresql(plan, {"orders": 140_000})
    assert found == [
        "Sort: 10 rows expected, 50,000 found: run ANALYZE on its table",
        "sorted on disk (1234 kB): raise work_mem, or give it an index in that order",
        "reads all of orders and throws 90,000 rows away: an index on orders (state) would find them",
        "Seq Scan on orders: 10 rows expected, 50,000 found: run ANALYZE on its table",
    ]


def test_warnings_of_mysql__filesort_and_temporary__named() -> None:
    row = {
        "table": "orders",
        "type": "ALL",
        "rows": 50_000,
        "extra": "Using where; Using temporary; Using filesort",
    }
    found = warnings_of_mysql([row])
    assert [warning.split()[0] for warning in found] == ["reads", "sorts", "keeps"]
    assert warnings_of_mysql([row | {"rows": 50}]) == []
