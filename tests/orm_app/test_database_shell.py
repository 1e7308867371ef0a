"""`database shell` and `database bench` on the three engines."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess

import pytest
from django.db import connections

from foundation.models import AuditEntry
from orm_app import bench
from orm_app.management import database_shell

from .backed_up import execute, rows_of
from .commanding import database
from .migrating import ENGINES, alias_of, url_of

pytestmark = [pytest.mark.service, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def keep_connections(monkeypatch):
    monkeypatch.setattr("django.core.management.base.connections.close_all", lambda: None)


@pytest.fixture(params=ENGINES)
def alias(request, tmp_path, django_db_blocker):
    with contextlib.ExitStack() as stack, django_db_blocker.unblock():
        yield stack.enter_context(alias_of(url_of(request.param, request, tmp_path, stack)))


@pytest.fixture
def lite(tmp_path, django_db_blocker):
    with django_db_blocker.unblock(), alias_of(f"sqlite:///{tmp_path}/m.sqlite3") as alias:
        yield alias


def test_shell__sql__runs_and_read_only_refuses_to_write(alias, capfd):
    assert database("shell", "--database", alias, "-c", "CREATE TABLE seen (n INT)")[0] == 0
    assert AuditEntry.objects.get(action="database.shell").target_id == alias
    assert database("shell", "--database", alias, "-c", "SELECT 40 + 2")[0] == 0
    assert "42" in capfd.readouterr().out
    assert database("shell", "--database", alias, "--read-only", "-c", "SELECT 41 + 2")[0] == 0
    assert "43" in capfd.readouterr().out
    code, _, _ = database("shell", "--database", alias, "--read-only", "-c", "INSERT INTO seen VALUES (1)")
    assert code != 0
    said = capfd.readouterr().err.lower()
    assert "read-only" in said or "read only" in said or "readonly" in said
    assert rows_of(alias, "SELECT COUNT(*) FROM seen") == [(0,)]
    assert AuditEntry.objects.filter(action="database.shell").count() == 2  # read-only leaves no entry


def test_shell__standard_input__is_the_sql(alias, tmp_path):
    execute(alias, "CREATE TABLE seen (n INT)")
    command, more = database_shell.invocation(connections[alias], is_read_only=False, sql=None, parameters=[])
    ran = subprocess.run(
        command, input=b"INSERT INTO seen VALUES (7);\n", env=os.environ | more, capture_output=True
    )
    assert ran.returncode == 0, ran.stderr
    assert rows_of(alias, "SELECT n FROM seen") == [(7,)]


def test_shell__password__never_on_the_command_line(alias):
    connection = connections[alias]
    if connection.vendor == "sqlite":
        return
    connection.settings_dict |= {"PASSWORD": "s3cret"}
    command, more = database_shell.invocation(connection, is_read_only=True, sql="SELECT 1", parameters=[])
    connection.settings_dict |= {"PASSWORD": ""}
    assert "s3cret" not in " ".join(command)
    assert "s3cret" in more.values()


def test_shell__client_missing__says_how_to_install_it(lite, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, said = database("shell", "--database", lite)
    assert code == 1
    assert "sqlite3 is not installed" in said
    assert "apt install sqlite3" in said


def test_bench__each_measure__and_no_table_is_left(alias):
    code, text, _ = database("bench", "--database", alias, "--seconds", "0.6", "--json")
    assert code == 0
    measures = json.loads(text)["measures"]
    assert [one["what"] for one in measures] == [
        "round trip", "insert, one a transaction", "insert, 100 a transaction", "read by primary key",
        "page of 50 (keyset)", "connection, 8 threads",
    ]  # fmt: skip
    assert all(one["rate"] > 0 and 0 < one["p50_ms"] <= one["p99_ms"] for one in measures)
    assert not [
        name for name in connections[alias].introspection.table_names() if name.startswith("brain_bench")
    ]


def test_bench__interrupted__no_table_is_left(alias, monkeypatch):
    def interrupted(self, for_s):
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
        raise KeyboardInterrupt

    monkeypatch.setattr(bench._Bench, "pages", interrupted)
    assert database("bench", "--database", alias, "--seconds", "0.5")[0] == 130
    assert not [
        name for name in connections[alias].introspection.table_names() if name.startswith("brain_bench")
    ]


def test_bench__production__needs_a_yes(lite, settings):
    settings.PRODUCTION = True
    code, text, _ = database("bench", "--database", lite, "--seconds", "0.5")
    assert (code, "This is production" in text) == (3, True)
    assert database("bench", "--database", lite, "--seconds", "0.5", "--yes")[0] == 0
    assert database("bench", "--database", lite, "--seconds", "1000")[0] == 2
