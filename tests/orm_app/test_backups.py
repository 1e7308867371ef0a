"""Backups on real servers: one moment while others write, and back with equal contents or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import signal
import stat
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
import structlog
from django.db import connections

from foundation.models import AuditEntry
from orm_app import backups, conf, migration_lock
from orm_app.backups import BackupFailed, clients, detached, files, listing, manifest, mysql_login, scratch
from orm_app.backups.manifest import Contents, Table

from .backed_up import execute, fill, held, rows_of, writer
from .commanding import database
from .migrating import ENGINES, alias_of, url_of

pytestmark = pytest.mark.django_db(transaction=True)
service = pytest.mark.service
BY = {"actor": "somebody", "source": "cli"}


@pytest.fixture(autouse=True)
def keep_connections(monkeypatch):
    monkeypatch.setattr("django.core.management.base.connections.close_all", lambda: None)


@pytest.fixture(autouse=True)
def directory(tmp_path):
    was = conf.conf()
    where = tmp_path / "backups"
    conf.conf.bind(dataclasses.replace(was, BACKUP_DIR=str(where)))
    yield where
    conf.conf.bind(was)


@pytest.fixture(params=ENGINES)
def urls(request, tmp_path):
    """Of two empty databases on one server."""
    with contextlib.ExitStack() as stack:
        (tmp_path / "other").mkdir()
        yield [url_of(request.param, request, where, stack) for where in (tmp_path, tmp_path / "other")]


@pytest.fixture
def alias(urls, django_db_blocker):
    with django_db_blocker.unblock(), alias_of(urls[0]) as alias:
        yield alias


@pytest.fixture
def other(urls, django_db_blocker):
    with django_db_blocker.unblock(), alias_of(urls[1]) as alias:
        yield alias


@pytest.fixture
def lite(tmp_path, django_db_blocker):
    with django_db_blocker.unblock(), alias_of(f"sqlite:///{tmp_path}/m.sqlite3") as alias:
        yield alias


@contextlib.contextmanager
def another_reader(alias: str):
    """A connection of somebody else's, open the whole time."""
    with clients.opened(connections[alias]) as own:

        def count() -> int:
            with own.cursor() as cursor:
                cursor.execute("SELECT COUNT(*) FROM kinds")
                return cursor.fetchone()[0]

        yield count


def leftovers(alias: str) -> list[str]:
    """Scratch databases of ours on the server."""
    vendor = connections[alias].vendor
    if vendor == "sqlite":
        return []
    sql = "SELECT datname FROM pg_database" if vendor == "postgresql" else "SHOW DATABASES"
    return [name for (name,) in rows_of(alias, sql) if name.startswith("brain_")]


@service
def test_take_and_restore__every_type__into_an_empty_database_with_equal_contents(alias, other, directory):
    fill(alias)
    before = held(alias)
    made = backups.take(alias, **BY)
    assert (made.state, made.verified, made.detail) == ("ok", "restored", "")
    assert made.rows == sum(
        count for name, (count, _) in before.items() if not name.startswith(("totals", "numbers"))
    ) + (1 if connections[alias].vendor == "postgresql" else 0) + (
        len(rows_of(alias, "SELECT 1 FROM sqlite_sequence")) if connections[alias].vendor == "sqlite" else 0
    )
    done = backups.restore(made.path, alias=other, **BY)
    assert (done.rows, done.is_verified) == (made.rows, True)
    assert held(other) == before
    execute(other, "INSERT INTO parent (name) VALUES ('third')")  # sequences go on behind what is there
    assert rows_of(other, "SELECT id FROM parent WHERE name = 'third'") == [(3,)]
    assert rows_of(other, "SELECT COUNT(*) FROM totals") == [(3,)] or connections[alias].vendor == "sqlite"
    assert leftovers(alias) == []
    entries = {one.action: one for one in AuditEntry.objects.filter(actor="somebody")}
    assert entries["database.backup"].after["verified"] == "restored"
    assert entries["database.restore"].after["from"].startswith(f"{alias} (")


@service
def test_restore__over_what_is_there__all_of_it_is_replaced(alias):
    fill(alias, 20)
    before = held(alias)
    made = backups.take(alias, **BY)
    execute(alias, "DROP VIEW totals", "DELETE FROM kinds", "CREATE TABLE newer (id INT PRIMARY KEY)")
    execute(alias, "ALTER TABLE parent ADD COLUMN extra INT")
    execute(alias, "CREATE VIEW newer_view AS SELECT * FROM newer", "INSERT INTO newer VALUES (1)")
    with another_reader(alias) as count:
        assert count() == 0
        backups.restore(made.path, **BY)
        assert count() == (21 if connections[alias].vendor == "sqlite" else 20)
    assert held(alias) == before
    assert leftovers(alias) == []
    if connections[alias].vendor == "mysql":
        assert rows_of(alias, "SELECT one_more(1)") == [(2,)]
        assert [row[1] for row in rows_of(alias, "SHOW EVENTS")] == ["sweep"]
        execute(alias, "INSERT INTO kinds (words) VALUES ('x')")
        assert rows_of(alias, "SELECT COUNT(*) FROM told") == [(21,)]
        with pytest.raises(Exception, match="foreign key constraint"):
            execute(alias, "INSERT INTO kinds (parent_id) VALUES (99)")


@service
def test_take_and_restore__slow_statements_of_their_own__are_no_findings(alias):
    conf.conf.bind(dataclasses.replace(conf.conf(), SLOW_QUERY_MS=0))
    with structlog.testing.capture_logs() as logs:
        execute(alias, "CREATE TABLE seen (x INT)", "INSERT INTO seen VALUES (1)")
        backups.restore(backups.take(alias, **BY).path, **BY)
    found = [one for one in logs if one["event"] == "slow_query" and one["alias"].startswith(alias)]
    assert [one["sql"] for one in found] == ["INSERT INTO seen VALUES (?)"]


@service
def test_take__while_others_write__one_moment(alias, other):
    fill(alias, 3000)
    with writer(alias) as committed:
        while len(committed) < 5:
            time.sleep(0.01)
        began = len(committed)
        made = backups.take(alias, **BY)
        during = len(committed) - began
    assert made.verified == "restored"
    assert made.detail == ""
    assert during > 5  # nobody was kept out for the whole of it
    backups.restore(made.path, alias=other, **BY)
    # A transaction moves one from the second row to the first: together they stay what they were.
    [[total]] = rows_of(other, "SELECT SUM(amount) FROM kinds WHERE id IN (1, 2)")
    assert round(float(total), 4) == 1.0
    [[added]] = rows_of(other, "SELECT COUNT(*) FROM kinds WHERE words = 'while it ran'")
    [[moved]] = rows_of(other, "SELECT amount FROM kinds WHERE id = 1")
    assert added == round(float(moved)) > 0


@service
def test_verify__bytes_that_changed_or_are_missing__refused(alias):
    fill(alias, 20)
    before = held(alias)
    made = backups.take(alias, is_verified=False, **BY)
    assert made.verified == "no"
    whole = made.path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    for content, said in (
        (bytes(damaged), "is damaged: its SHA-256"),
        (whole[: len(whole) // 2], "it was cut or changed"),
    ):
        made.path.write_bytes(content)
        for call in (backups.verify, lambda path: backups.restore(path, **BY)):
            with pytest.raises(BackupFailed, match=said):
                call(made.path)
    # Whoever forges the digest too meets what reads the archive, and the comparison.
    sha256, size = files.digest(made.path)
    known = files.manifest(made.path)
    files.write_manifest(made.path, dataclasses.replace(known, sha256=sha256, size_bytes=size))
    with pytest.raises(BackupFailed):
        backups.verify(made.path)
    with pytest.raises(BackupFailed):
        backups.restore(made.path, **BY)
    assert held(alias) == before
    made.path.write_bytes(whole)
    files.write_manifest(made.path, known)
    assert backups.verify(made.path).verified == "restored"
    assert listing.of(made.path).verified == "restored"


@service
def test_restore__other_contents_than_the_manifest__the_old_ones_stay(alias):
    fill(alias, 20)
    made = backups.take(alias, is_verified=False, **BY)
    known = files.manifest(made.path)
    tables = tuple(
        dataclasses.replace(one, checksum="1") if one.name.endswith("parent") else one
        for one in known.contents.tables
    )
    lying = dataclasses.replace(known, contents=dataclasses.replace(known.contents, tables=tables))
    files.write_manifest(made.path, lying)
    execute(alias, "DELETE FROM kinds WHERE id > 5")
    before = held(alias)
    for call in (backups.verify, lambda path: backups.restore(path, **BY)):
        with pytest.raises(BackupFailed, match="the rows of .*parent are others"):
            call(made.path)
    assert held(alias) == before
    assert leftovers(alias) == []


@service
def test_restore__views_or_triggers_that_fail__the_old_tables_come_back(
    mariadb_url, tmp_path, django_db_blocker
):
    from orm_app.backups import mysql

    from .migrating import fresh_database

    with fresh_database(mariadb_url) as url, django_db_blocker.unblock(), alias_of(url) as alias:
        fill(alias, 20)
        made = backups.take(alias, **BY)
        execute(alias, "DELETE FROM kinds WHERE id > 5")
        before = held(alias)

        def broken(path):
            yield from (line for section, line in whole(path) if section != mysql.TABLES)
            yield b"SELECT no_such_function();\n"

        whole = mysql.lines
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("orm_app.backups.mysql_swap._code", broken)
            with pytest.raises(BackupFailed, match="no_such_function"):
                backups.restore(made.path, **BY)
        assert held(alias) == before
        assert leftovers(alias) == []
        assert rows_of(alias, "SELECT one_more(1)") == [(2,)]
        assert [row[1] for row in rows_of(alias, "SHOW EVENTS")] == ["sweep"]
        execute(alias, "INSERT INTO kinds (words) VALUES ('x')")
        assert rows_of(alias, "SELECT COUNT(*) FROM told") == [(21,)]  # its trigger is there again
        with pytest.raises(Exception, match="foreign key constraint"):
            execute(alias, "DELETE FROM parent WHERE id = 1")


@service
@pytest.mark.parametrize("urls", ["mariadb"], indirect=True)
def test_take__tables_cannot_be_locked__the_copys_rows_and_a_note(alias, monkeypatch):
    fill(alias, 20)
    monkeypatch.setattr(
        "orm_app.backups.mysql._lock", lambda locker, names: "rows could not be counted: denied"
    )
    made = backups.take(alias, **BY)
    assert (made.verified, made.rows) == ("restored", 43)
    assert (
        "rows could not be counted: denied; the manifest's rows are those of the restored copy" in made.detail
    )
    assert backups.take(alias, is_verified=False, **BY).rows is None
    assert backups.restore(made.path, **BY).is_verified


@service
@pytest.mark.parametrize("urls", ["mariadb"], indirect=True)
def test_take__a_long_transaction_holds_rows__others_wait_no_longer_than_the_lock(alias, monkeypatch):
    fill(alias, 5)
    monkeypatch.setattr("orm_app.backups.mysql._LOCK_S", 1)
    monkeypatch.setattr("orm_app.backups.mysql._LOCK_ATTEMPTS", 1)
    with clients.opened(connections[alias]) as busy, busy.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("UPDATE kinds SET amount = 1000000 WHERE id = 1")
        made = backups.take(alias, **BY)
        cursor.execute("ROLLBACK")
    assert made.verified == "restored"
    assert "Lock wait timeout exceeded" in made.detail


# --- what goes wrong -----------------------------------------------------------------------------------------------------
@service
def test_take__the_program_is_missing_or_too_old__said(alias, monkeypatch, directory, tmp_path):
    if connections[alias].vendor == "sqlite":
        return  # it needs no program
    fill(alias, 5)
    monkeypatch.setattr(clients, "_ELSEWHERE", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackupFailed, match="dump is not installed") as raised:
        backups.take(alias, **BY)
    assert raised.value.hint.startswith("Install ")
    if connections[alias].vendor == "postgresql":
        old = tmp_path / "pg_dump"
        old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.1'\n")
        old.chmod(0o755)
        with pytest.raises(BackupFailed, match="is version 9, older than the server's"):
            backups.take(alias, **BY)
    assert [one.state for one in backups.every()] == ["failed"]
    assert not [path for path in directory.iterdir() if not path.name.startswith(".")]


@contextlib.contextmanager
def killed(alias, work, step):
    """A process that does `work(progress)` and stops for ever at that step, while the block runs; then it is killed."""
    connections[alias].close()
    if hasattr(connections[alias], "close_pool"):
        connections[alias].close_pool()
    came, told = os.pipe()
    pid = os.fork()
    if pid == 0:

        def progress(now, done, total):
            if now == step and done > 1:
                os.write(told, b"half way")
                time.sleep(600)
                os._exit(1)

        try:
            work(progress)
        finally:
            os._exit(1)
    os.close(told)
    try:
        assert os.read(came, 100) == b"half way"
        yield pid
    finally:
        os.close(came)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@service
def test_take__killed_half_way__no_file_and_the_next_one_clears_up(alias, directory):
    fill(alias, 20)
    with killed(alias, lambda progress: backups.take(alias, progress=progress, **BY), "checking tables"):
        [running] = backups.every()
        assert (running.state, running.alias, running.detail[:8]) == ("running", alias, "checking")
    [failed] = backups.every()
    assert (failed.state, failed.detail) == ("failed", "its process ended before the backup did")
    assert [path for path in directory.iterdir() if not path.name.startswith(".")] == []
    made = backups.take(alias, **BY)
    assert [one.name for one in backups.every()] == [made.name]
    assert sorted(path.name for path in directory.iterdir()) == [made.name, f"{made.name}.json"]


@service
def test_restore__killed_half_way__the_old_contents(alias, monkeypatch):
    monkeypatch.setattr("orm_app.backups.sqlite._PAGES", 2)
    fill(alias, 300)
    made = backups.take(alias, **BY)
    execute(alias, "DELETE FROM kinds WHERE id > 5")
    before = held(alias)
    with killed(
        alias, lambda progress: backups.restore(made.path, progress=progress, **BY), "restoring"
    ) as pid:
        pass
    assert held(alias) == before
    backups.restore(made.path, **BY)
    assert rows_of(alias, "SELECT COUNT(*) FROM kinds WHERE id <= 300") == [(300,)]
    with clients.secret_file("x"):  # the killed one's password stays in no file
        assert len(list(Path(tempfile.gettempdir()).glob(f"brain-client-{os.getpid()}-*"))) == 1
        assert not list(Path(tempfile.gettempdir()).glob(f"brain-client-{pid}-*"))


@service
def test_restore__somebody_has_a_transaction_open__gives_up_and_says_so(
    postgresql_url, django_db_blocker, monkeypatch
):
    from .migrating import fresh_database

    monkeypatch.setattr("orm_app.backups.postgresql._LOCK_S", 1)
    with fresh_database(postgresql_url) as url, django_db_blocker.unblock(), alias_of(url) as alias:
        fill(alias, 5)
        made = backups.take(alias, is_verified=False, **BY)
        with clients.opened(connections[alias]) as busy, busy.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT 1 FROM kinds")
            with pytest.raises(BackupFailed, match="nothing was changed: .*lock timeout") as raised:
                backups.restore(made.path, **BY)
            cursor.execute("ROLLBACK")
        assert "database locks" in raised.value.hint
        assert rows_of(alias, "SELECT COUNT(*) FROM kinds") == [(5,)]


@service
def test_take__no_room_for_the_file__no_half_one_is_left(alias, directory):
    fill(alias, 300)
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, was[1]))  # as a full disk: a write fails
    try:
        with pytest.raises(BackupFailed, match="File too large|disk I/O error|disk is full"):
            backups.take(alias, is_verified=False, **BY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
    assert [path.name for path in directory.iterdir() if not path.name.endswith(".status")] == []
    assert [one.state for one in backups.every()] == ["failed"]
    assert backups.take(alias, **BY).verified == "restored"


def test_take__interrupted__said_and_no_half_file(lite, directory):
    fill(lite, 5)

    def progress(step, done, total):
        if step == "checking tables":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backups.take(lite, progress=progress, **BY)
    assert [(one.state, one.detail) for one in backups.every()] == [("failed", "it was interrupted")]
    assert [path.suffix for path in directory.iterdir()] == [".status"]


def test_take__no_such_database__said(lite):
    with pytest.raises(BackupFailed, match="there is no database 'nope'"):
        backups.take("nope", **BY)
    Path(connections[lite].settings_dict["NAME"]).unlink(missing_ok=True)
    with pytest.raises(BackupFailed, match="does not exist: there is nothing to back up"):
        backups.take(lite, **BY)


@service
def test_take__may_not_create_a_database__only_the_archive_was_read(
    postgresql_url, directory, django_db_blocker
):
    from .migrating import fresh_database

    with fresh_database(postgresql_url) as url, django_db_blocker.unblock(), alias_of(url) as alias:
        fill(alias, 5)
        name = url.rpartition("/")[2]
        execute(alias, f"CREATE ROLE {name}r LOGIN PASSWORD 'pw'", f"GRANT pg_read_all_data TO {name}r")
        execute(alias, f"GRANT USAGE ON SCHEMA side TO {name}r")
        try:
            with alias_of(url.replace("brain@", f"{name}r:p%3A%5Cw@")) as poor:
                code_known = backups.take(poor, **BY)
                assert code_known.verified == "archive"
                assert "permission denied to create database" in code_known.detail
                assert backups.verify(code_known.path, alias=alias).verified == "restored"
        finally:
            execute(alias, f"DROP OWNED BY {name}r", f"DROP ROLE {name}r")


@service
def test_restore__an_account_that_owns_its_database_only__extensions_and_their_rows_stay(
    postgresql_url, django_db_blocker
):
    from .migrating import fresh_database

    with fresh_database(postgresql_url) as url, django_db_blocker.unblock(), alias_of(url) as alias:
        name = url.rpartition("/")[2]
        execute(alias, "CREATE EXTENSION citext", f"CREATE ROLE {name}r LOGIN")
        execute(alias, f"ALTER DATABASE {name} OWNER TO {name}r")
        try:
            with alias_of(url.replace("brain@", f"{name}r@")) as owner:
                execute(
                    owner, "CREATE TABLE words (word citext PRIMARY KEY)", "INSERT INTO words VALUES ('One')"
                )
                execute(owner, "CREATE TYPE mood AS ENUM ('calm')", "CREATE TABLE felt (how mood[])")
                made = backups.take(owner, **BY)
                assert made.verified == "archive"
                execute(owner, "DELETE FROM words", "DROP TABLE felt", "CREATE TABLE felt (other INT)")
                assert backups.restore(made.path, **BY).is_verified
                assert rows_of(owner, "SELECT COUNT(*) FROM words WHERE word = 'ONE'") == [(1,)]
                assert rows_of(owner, "SELECT how FROM felt") == []
                # Another account: what it restores is its own.
                assert backups.restore(made.path, alias=alias, **BY).is_verified
                assert rows_of(alias, "SELECT tableowner FROM pg_tables WHERE tablename = 'words'") == [
                    ("brain",)
                ]
        finally:
            execute(
                alias, f"ALTER DATABASE {name} OWNER TO brain", f"DROP OWNED BY {name}r", f"DROP ROLE {name}r"
            )


# --- refusals and what is said first -------------------------------------------------------------------------------------
def test_restore__without_yes__says_what_goes_and_does_nothing(lite, directory):
    fill(lite, 5)
    code, text, _ = database("backup", "--database", lite)
    assert code == 0, text
    assert "restored and compared" in text
    [made] = backups.every()
    execute(lite, "DELETE FROM kinds")
    code, text, _ = database("restore", made.name)
    assert code == 3
    assert f"Replaces 3 tables with 3 rows of {lite}" in text
    assert "parent: 2 rows" in text
    assert "seconds old" in text
    assert "Nothing was done" in text
    assert rows_of(lite, "SELECT COUNT(*) FROM kinds") == [(0,)]
    code, text, _ = database("restore", made.name, "--json")
    assert (code, json.loads(text)["would_replace"]["parent"]) == (3, 2)
    code, text, _ = database("restore", made.name, "--yes")
    assert code == 0
    assert rows_of(lite, "SELECT COUNT(*) FROM kinds") == [(6,)]
    assert "migrations are pending now: " in text


def test_restore__a_migrate_is_running__waits_for_it_and_says_who(lite):
    fill(lite, 5)
    made = backups.take(lite, **BY)
    was = conf.conf()
    conf.conf.bind(dataclasses.replace(was, MIGRATE_WAIT_S=0.1))
    ready, done = threading.Event(), threading.Event()

    def migrate():
        with migration_lock.held(connections[lite], wait_s=60, tell=lambda text: None):
            ready.set()
            done.wait(300)

    thread = threading.Thread(target=migrate)
    thread.start()
    try:
        assert ready.wait(60)
        with pytest.raises(BackupFailed, match="another migrate .process"):
            backups.restore(made.path, **BY)
    finally:
        done.set()
        thread.join(60)
        conf.conf.bind(was)


@service
def test_restore__another_engine_or_an_older_server__refused(lite, postgresql_url, django_db_blocker):
    from .migrating import fresh_database

    with fresh_database(postgresql_url) as url, django_db_blocker.unblock(), alias_of(url) as alias:
        fill(alias, 5)
        made = backups.take(alias, is_verified=False, **BY)
        with pytest.raises(BackupFailed, match=f"is of postgresql, and {lite} is sqlite"):
            backups.restore(made.path, alias=lite, **BY)
        files.write_manifest(made.path, dataclasses.replace(files.manifest(made.path), server_version="99.1"))
        with pytest.raises(BackupFailed, match=r"is of server version 99\.1, newer than"):
            backups.restore(made.path, **BY)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "the manifest cannot be read"),
        ('{"format": 1}', "the manifest cannot be read"),
        ('{"format": 2}', "made by a newer version"),
        (None, "has no manifest"),
    ],
    ids=["cut", "empty", "newer", "missing"],
)
def test_verify__manifest_that_cannot_be_read__said(text, said, lite, directory):
    fill(lite, 1)
    made = backups.take(lite, **BY)
    if text is None:
        files.manifest_path(made.path).unlink()
    else:
        files.manifest_path(made.path).write_text(text)
    with pytest.raises(BackupFailed, match=said):
        backups.verify(made.path)
    code, _, error = database("verify", str(made.path))
    assert code == 1
    assert said in error


def test_backup__files__for_the_owner_alone_and_as_many_as_wanted(lite, directory):
    fill(lite, 5)
    taken = [backups.take(lite, **BY) for _ in range(3)]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert len({one.name for one in taken}) == 3
    code, text, _ = database("backup", "--database", lite, "--keep", "2", "--json")
    assert code == 0
    found = json.loads(text)
    assert (found["state"], found["verified"], found["tables"]) == ("ok", "restored", 4)
    listed = json.loads(database("backups", "--json")[1])["backups"]
    assert len(listed) == 2
    assert found["name"] in [one["name"] for one in listed]
    gone = AuditEntry.objects.get(action="database.backup_prune")
    assert len(gone.after["files"]) == 2
    code, _, error = database("backup", "--database", lite, "--output", str(directory / found["name"]))
    assert (code, "exists already" in error) == (1, True)


def test_start__a_process_of_its_own__seen_until_it_is_done(lite, directory):
    """The alias is known to this process alone, so that the child fails: which is seen as well."""
    with pytest.raises(BackupFailed, match="there is no database"):
        backups.start("nope", by="ann")
    pid = backups.start(lite, by="ann")
    os.kill(pid, signal.SIGSTOP)  # or it may be over before it is looked at
    try:
        [begun] = backups.every()
        assert (begun.state, begun.alias, begun.detail) == ("running", lite, "beginning")
        with pytest.raises(BackupFailed, match="is running already"):
            backups.start(lite, by="ann")
    finally:
        os.kill(pid, signal.SIGCONT)
    _ended(pid)
    assert backups.every() == []
    assert f"invalid choice: '{lite}'" in backups.log(lite)


def test_start__after_one_that_has_ended__leaves_no_zombie(lite, directory):
    first = backups.start(lite, by="ann")
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)  # a zombie
    second = backups.start(lite, by="ann")
    with pytest.raises(ChildProcessError):
        os.waitpid(first, os.WNOHANG)
    _ended(second)


def _ended(pid: int) -> None:
    [child] = [child for child in detached._started if child.pid == pid]
    child.wait(300)


def test_scratch__left_over_for_a_day__removed_and_no_younger_one():
    class Cursor:
        dropped: list[str] = []

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def execute(self, sql):
            self.dropped += [sql] if sql.startswith("DROP") else []

        def fetchall(self):
            return [(name,) for name in names]

    class Connection:
        vendor = "mysql"

        def cursor(self):
            return Cursor()

    old, young = int(time.time()) - 90000, int(time.time()) - 60
    names = [
        f"brain_verify_{old:x}_abcdef",
        f"brain_verify_{young:x}_abcdef",
        f"brain_old_{old:x}_abcdef",
        "brain",
    ]
    scratch.remove_old(Connection())
    assert Cursor.dropped == [f"DROP DATABASE IF EXISTS brain_verify_{old:x}_abcdef"]


def test_differences__each_kind__named():
    expected = Contents(
        (Table("a", 1, "x"), Table("b", 2, "y"), Table("c", 3, "z")), {"s": 5, "t": 5}, ("view:v",)
    )
    found = Contents((Table("b", 1, "y"), Table("c", 3, "other"), Table("d", 1, "")), {"t": 4}, ())
    assert manifest.differences(expected, found) == [
        "a is missing",
        "b has 1 rows, not 2",
        "the rows of c are others",
        "d is not in the backup's list",
        "sequence s is missing",
        "sequence t stands at 4, not 5",
        "view v is missing",
    ]
    assert manifest.differences(expected, expected) == []


def test_mysql_login__awkward_password__as_the_server_knows_it():
    text = mysql_login.text(
        {
            "USER": "u",
            "PASSWORD": "a\"b\\c#d e'",
            "HOST": "/run/s",
            "PORT": "",
            "OPTIONS": {"ssl": {"ca": "/ca"}},
        }
    )
    assert text.splitlines() == [
        "[client]", 'user="u"', 'password="a"b\\\\c#d e\'"', 'socket="/run/s"', 'ssl-ca="/ca"',
    ]  # fmt: skip


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "''")


@service
def test_take__passwords__are_on_no_command_line(alias, monkeypatch):
    fill(alias, 5)
    vendor = connections[alias].vendor
    if vendor == "sqlite":
        return
    secret = "s3cret:\\ \"x'#"
    if vendor == "mysql":
        execute(alias, f"SET PASSWORD = PASSWORD('{_escaped(secret)}')")
        connections[alias].close()
        connections[alias].close_pool()
    connections[alias].settings_dict |= {"PASSWORD": secret}
    seen: list[list[str]] = []
    plain = subprocess.Popen

    def watched(command, **how):
        seen.append([str(one) for one in command])
        assert secret not in str(how.get("env"))
        return plain(command, **how)

    monkeypatch.setattr(clients.subprocess, "Popen", watched)
    try:
        made = backups.take(alias, **BY)
        backups.restore(made.path, **BY)
    finally:
        if vendor == "mysql":
            execute(alias, "SET PASSWORD = ''")
        connections[alias].close()
        connections[alias].close_pool()
        connections[alias].settings_dict |= {"PASSWORD": ""}
    assert len(seen) > 4
    assert not [word for command in seen for word in command if secret in word]
