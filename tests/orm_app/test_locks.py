from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction

from orm_app import limited, locks
from tests.orm_app.migrating import alias_of

SERVERS = ["postgresql", "mariadb"]
SECRET = "hunter2"


@pytest.fixture(scope="module", params=SERVERS)
def alias(request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: Any) -> Iterator[str]:
    """A server with one table of two rows."""
    if request.param == "mariadb":
        pytest.importorskip("MySQLdb")
    with django_db_blocker.unblock(), alias_of(request.getfixturevalue(f"{request.param}_url")) as name:
        with connections[name].cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS account")
            cursor.execute("CREATE TABLE account (id int PRIMARY KEY, owner varchar(20), amount int)")
            cursor.execute("INSERT INTO account VALUES (1, 'ann', 1), (2, 'bob', 2)")
        yield name
        with connections[name].cursor() as cursor:
            cursor.execute("DROP TABLE account")


class Other:
    """A session of its own in a thread of its own, which does one statement in a transaction and waits to be let go."""

    def __init__(self, alias: str, sql: str) -> None:
        self.alias, self.sql = alias, sql
        self.id = 0
        self.error: Exception | None = None
        self.has_connected, self.has_run, self.may_go = (
            threading.Event(),
            threading.Event(),
            threading.Event(),
        )
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        own = connections[self.alias]
        try:
            with transaction.atomic(self.alias), own.cursor() as cursor:
                cursor.execute(
                    "SELECT " + ("pg_backend_pid()" if own.vendor == "postgresql" else "CONNECTION_ID()")
                )
                self.id = cursor.fetchone()[0]
                self.has_connected.set()
                cursor.execute(self.sql)
                self.has_run.set()
                self.may_go.wait(300)
                raise _Over
        except _Over:
            pass
        except Exception as error:
            self.error = error
        finally:
            own.close()

    def __enter__(self) -> Other:
        self._thread.start()
        assert self.has_connected.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.may_go.set()
        self._thread.join()


class _Over(Exception):
    pass


@contextlib.contextmanager
def one_waits_for_another(alias: str) -> Iterator[tuple[Other, Other]]:
    update = f"UPDATE account SET owner = '{SECRET}' WHERE id = 1"
    with Other(alias, update) as holder:
        assert holder.has_run.wait(60)
        with Other(alias, update) as waiter:
            # This one: InnoDB may still tell of the test before, and what does not yet wait cannot be cancelled.
            until(lambda: any(one.id == waiter.id and one.blocked_by for one in locks.every(alias).sessions))
            try:
                yield holder, waiter
            finally:
                holder.may_go.set()


def until(condition: Any, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.15)  # InnoDB renews its tables about itself when nobody has read them for 0.1 s


def cancel(alias: str, id: int) -> None:
    """Past `locks`, which writes an audit entry."""
    sql = "SELECT pg_cancel_backend(%s)" if connections[alias].vendor == "postgresql" else "KILL QUERY %s"
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, (id,))


@pytest.mark.service
def test_every__one_waits_for_another__both_without_values(alias: str) -> None:
    until(lambda: locks.every(alias).sessions == [])  # those of other tests are on their way out
    with one_waits_for_another(alias) as (holder, waiter):
        found = locks.every(alias)
        waiting, holding = found.sessions
        assert (waiting.id, waiting.blocked_by, waiting.state) == (waiter.id, (holder.id,), "waiting")
        assert (holding.id, holding.blocks, holding.state) == (holder.id, (waiter.id,), "idle in transaction")
        assert found.waiting == 1
        assert found.longest_wait_s == waiting.waiting_s is not None
        assert waiting.transaction_s is not None
        assert waiting.transaction_s < 600
        assert waiting.sql == "UPDATE account SET owner = ? WHERE id = ?"
        assert waiting.waits_for
        assert not any(one.is_ours for one in found.sessions)
        assert SECRET not in str(found)


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    monkeypatch.setattr(locks.audit, "record", lambda **entry: entries.append(entry))
    return entries


@pytest.mark.service
def test_cancel_and_end__the_waiter_and_the_holder__both_are_rid_of_and_audited(
    alias: str, audited: list[dict[str, Any]]
) -> None:
    with one_waits_for_another(alias) as (holder, waiter):
        locks.cancel(alias, waiter.id, actor="ann", source="cli")
        until(lambda: waiter.error is not None)
        assert isinstance(waiter.error, OperationalError)
        locks.end(alias, holder.id, actor="ann", source="cli")
        until(lambda: not locks.every(alias).sessions)
    assert [entry["action"] for entry in audited] == ["database.session_cancel", "database.session_end"]
    assert [entry["after"]["session"] for entry in audited] == [waiter.id, holder.id]
    assert audited[0]["target"] == f"database:{alias}"
    assert SECRET not in str(audited)


@pytest.mark.service
def test_end__no_such_or_our_own_session__refused(alias: str, audited: list[dict[str, Any]]) -> None:
    with pytest.raises(locks.NoSuchSession, match="no session 999999"):
        locks.end(alias, 999999, actor=None, source="cli")
    connections[alias].ensure_connection()
    sql = "SELECT " + ("pg_backend_pid()" if connections[alias].vendor == "postgresql" else "CONNECTION_ID()")
    with transaction.atomic(alias), connections[alias].cursor() as cursor:
        cursor.execute(sql)
        own = cursor.fetchone()[0]
        with pytest.raises(locks.NoSuchSession, match="is this session"):
            locks.end(alias, own, actor=None, source="cli")
    assert audited == []


@pytest.mark.service
def test_every__a_table_is_locked__its_waiter_is_shown(alias: str) -> None:
    with Other(alias, "SELECT * FROM account") as reader:
        assert reader.has_run.wait(60)
        with Other(alias, "ALTER TABLE account ADD COLUMN more int") as altering:
            until(lambda: locks.every(alias).waiting)
            found = locks.every(alias)
            waiting = found.sessions[0]
            assert waiting.id == altering.id
            assert "account" in waiting.waits_for or "metadata" in waiting.waits_for
            # MariaDB does not say who holds a metadata lock, and so do we.
            assert waiting.blocked_by == (reader.id,) or found.notes
            cancel(alias, altering.id)
            until(lambda: altering.error is not None)


@pytest.mark.service
def test_limited__a_statement_that_takes_too_long__ends_in_time(alias: str) -> None:
    sleep = "SELECT pg_sleep(20)" if connections[alias].vendor == "postgresql" else "SELECT SLEEP(20)"
    began = time.monotonic()
    with contextlib.suppress(OperationalError):
        limited.ask(alias, sleep, timeout_s=0.3)
    assert time.monotonic() - began < 15
    assert limited.ask(alias, "SELECT 1 AS one", timeout_s=60) == [{"one": 1}]


@pytest.mark.service
def test_limited__what_is_written__is_taken_back(alias: str) -> None:
    with limited.cursor(alias, 60) as cursor:
        cursor.execute("DELETE FROM account")
    assert limited.ask(alias, "SELECT count(*) AS n FROM account", timeout_s=60) == [{"n": 2}]


# --- SQLite ----------------------------------------------------------------------------------------------------------

HOLD = """
import sqlite3, sys
own = sqlite3.connect(sys.argv[1], isolation_level=None)
own.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


def test_every__sqlite_file__who_writes_now(tmp_path: Any, django_db_blocker: Any) -> None:
    path = tmp_path / "db.sqlite3"
    with django_db_blocker.unblock(), alias_of(f"sqlite:///{path}") as alias:
        with connections[alias].cursor() as cursor:
            cursor.execute("CREATE TABLE t (id integer)")
        free = locks.every(alias)
        assert free.facts["journal_mode"] == "wal"
        assert free.facts["is_write_locked"] is False
        assert free.facts["writers"] == []
        command = [sys.executable, "-c", HOLD, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            held = locks.every(alias)
            other.communicate("")
        assert held.facts["is_write_locked"] is True
        assert held.facts["wal_bytes"] > 0
        if sys.platform == "linux":
            assert [one["pid"] for one in held.facts["writers"]] == [other.pid]
        assert any("somebody writes now" in note for note in held.notes)
        with pytest.raises(locks.NoSuchSession):
            locks.end(alias, 1, actor=None, source="cli")


def test_every__sqlite__leaves_the_file_usable(tmp_path: Any, django_db_blocker: Any) -> None:
    path = tmp_path / "db.sqlite3"
    other = sqlite3.connect(path, timeout=0, isolation_level=None)
    with django_db_blocker.unblock(), alias_of(f"sqlite:///{path}") as alias, transaction.atomic(alias):
        connections[alias].cursor().execute("CREATE TABLE t (id integer)")
        assert locks.every(alias).facts["is_write_locked"] is True
        # Still ours alone: looking has not taken our lock away.
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    other.close()
