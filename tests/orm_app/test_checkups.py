from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections, transaction

from orm_app import checkup_findings, checkups, checkups_mysql, health, replicas
from tests.orm_app.migrating import alias_of, fresh_database
from tests.orm_app.test_status import database, keep_the_tests_connection  # noqa: F401  (a fixture)

ENGINES = ["sqlite", "postgresql", "mariadb"]


@pytest.fixture(scope="module", params=ENGINES)
def alias(
    request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: Any, tmp_path_factory: Any
) -> Iterator[str]:
    if request.param == "mariadb":
        pytest.importorskip("MySQLdb")
    with contextlib.ExitStack() as stack:
        stack.enter_context(django_db_blocker.unblock())
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path_factory.mktemp('checkups')}/db.sqlite3"
        else:
            url = stack.enter_context(fresh_database(request.getfixturevalue(f"{request.param}_url")))
        name = stack.enter_context(alias_of(url))
        with connections[name].cursor() as cursor:
            cursor.execute("CREATE TABLE item (id integer PRIMARY KEY, note varchar(50))")
            cursor.execute("INSERT INTO item VALUES (1, 'a'), (2, 'b')")
        yield name


def by_name(found: checkups.Checkup) -> dict[str, checkup_findings.Finding]:
    return {one.name: one for one in found.findings}


@pytest.mark.service
def test_of__each_engine__every_look_answers(alias: str) -> None:
    found = checkups.of(alias, integrity=True)
    assert [one for one in found.findings if "looked at" in one.text or "look at it" in one.text] == []
    assert found.size_bytes
    assert "item" in [table.name for table in found.tables]
    names = set(by_name(found))
    looks = {look.__name__ for look in checkups._ENGINES[found.engine].LOOKS}
    missing = looks - names - {"replication", "transactions", "space"}
    assert not missing
    assert by_name(found)["migrations"].level == checkup_findings.WARN  # nothing is migrated here
    assert found.state == checkup_findings.WARN
    assert {one.level for one in found.findings if one.name != "migrations"} <= {
        checkup_findings.OK,
        checkup_findings.WARN,
    }


@pytest.mark.service
def test_of__a_key_near_its_end_and_a_broken_index__found(alias: str) -> None:
    vendor = connections[alias].vendor
    if vendor == "sqlite":
        pytest.skip("its keys have 63 bits")
    with connections[alias].cursor() as cursor:
        if vendor == "postgresql":
            cursor.execute("CREATE TABLE full_one (id serial PRIMARY KEY, a int)")
            cursor.execute("SELECT setval('full_one_id_seq', 2000000000)")
            cursor.execute("INSERT INTO full_one (a) VALUES (1), (1)")
            with pytest.raises(Exception, match="full_one_a"):
                cursor.execute("CREATE UNIQUE INDEX CONCURRENTLY full_one_a ON full_one (a)")
        else:
            cursor.execute(
                "CREATE TABLE full_one (id int AUTO_INCREMENT PRIMARY KEY) AUTO_INCREMENT = 2000000000"
            )
    try:
        found = checkups.of(alias)
    finally:
        with connections[alias].cursor() as cursor:
            cursor.execute("DROP TABLE full_one")
    key = by_name(found)["sequences" if vendor == "postgresql" else "auto_increments"]
    assert (key.level, round(key.value, 2)) == (checkup_findings.BAD, 0.93)
    assert "full_one" in key.text
    assert found.state == checkup_findings.BAD
    if vendor == "postgresql":
        index = by_name(found)["invalid_indexes"]
        assert "full_one_a on full_one" in index.text
        assert index.hint


@pytest.mark.service
def test_of__inside_a_transaction__leaves_it_as_it_was(alias: str) -> None:
    with transaction.atomic(alias), connections[alias].cursor() as cursor:
        cursor.execute("UPDATE item SET note = 'changed' WHERE id = 1")
        checkups.of(alias)
        cursor.execute("SELECT note FROM item WHERE id = 1")
        assert cursor.fetchone()[0] == "changed"


@pytest.mark.service
def test_of__one_look_fails__the_others_answer(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(cursor: Any) -> list[checkup_findings.Finding]:
        cursor.execute("SELECT * FROM nowhere")
        return []

    engine = checkups._ENGINES[connections[alias].vendor]
    monkeypatch.setattr(engine, "LOOKS", (broken, *engine.LOOKS))
    found = checkups.of(alias)
    assert by_name(found)["broken"].text.startswith("cannot be looked at: ")
    assert len(found.findings) > 3


def test_of__the_database_is_down__bad_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        health, "check", lambda using="default": health.Health("database", False, "connection refused")
    )
    found = checkups.of("default")
    assert found.state == checkup_findings.BAD
    assert [(one.name, one.text) for one in found.findings] == [("connection", "connection refused")]


@pytest.mark.django_db
def test_of__a_replica_lags__warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    state = replicas.State("copy", "default", False, 90.0, "it is 90 s behind")
    monkeypatch.setattr(replicas, "states", lambda: [state])
    found = by_name(checkups.of("default"))["replica"]
    assert (found.level, found.text) == (checkup_findings.WARN, "copy gets no reads: it is 90 s behind")


def test_integrity__a_broken_file__bad(tmp_path: Any, django_db_blocker: Any) -> None:
    path = tmp_path / "db.sqlite3"
    with django_db_blocker.unblock(), alias_of(f"sqlite:///{path}") as alias:
        with connections[alias].cursor() as cursor:
            cursor.execute("CREATE TABLE t (a text)")
            cursor.execute("INSERT INTO t VALUES (%s)", ["x" * 20_000])
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connections[alias].close()
        text = bytearray(path.read_bytes())
        text[4096:8192] = b"\xff" * 4096
        path.write_bytes(text)
        assert checkups.of(alias, integrity=True).state == checkup_findings.BAD


@pytest.mark.parametrize(
    ("value", "level"), [(0.5, "ok"), (0.8, "warn"), (0.95, "bad")], ids=["ok", "warn", "bad"]
)
def test_above__value__level_and_hint(value: float, level: str) -> None:
    found = checkup_findings.above("x", value, "text", "do it", warn=0.8, bad=0.95)
    assert (found.level, found.hint) == (level, "" if level == "ok" else "do it")


def test_auto_increment_part__unsigned__reaches_twice_as_far() -> None:
    row = {"next": 2_147_483_648, "type": "int", "whole": "int(10) unsigned"}
    assert checkups_mysql._part(row) == pytest.approx(0.5)
    assert checkups_mysql._part(row | {"whole": "int(11)"}) == pytest.approx(1.0)


@pytest.mark.django_db
def test_verb__health__exit_code_and_json() -> None:
    code, text = database("health", "--json", "--database", "default")
    [found] = json.loads(text)["databases"]
    assert code == {"ok": 0, "warn": 3, "bad": 1}[found["state"]]
    assert {"name", "level", "text", "hint", "value"} == set(found["findings"][0])
    _, plain = database("health", "--database", "default")
    assert "migrations: all are applied" in plain


@pytest.mark.django_db
def test_verb__health__down__exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "check", lambda using="default": health.Health("database", False, "refused"))
    code, text = database("health", "--database", "default")
    assert code == 1
    assert "refused" in text


@pytest.mark.django_db
def test_verb__pools__those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from orm_app import pools

    one = pools.PoolStats("default", "postgresql", 1, 8, 3, 1, 2, *[0] * 10)
    monkeypatch.setattr(pools, "stats", lambda alias=None: [one])
    code, text = database("pools", "--json")
    assert code == 3
    assert json.loads(text)["pools"][0]["in_use"] == 2
    monkeypatch.setattr(pools, "stats", lambda alias=None: [])
    assert database("pools")[0] == 0
