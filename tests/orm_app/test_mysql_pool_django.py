"""Django's connection on the pool, against a real MariaDB: what plain mysqlclient does, and what the pool adds."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import Group
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_finished
from django.db import DatabaseError, Error, OperationalError, close_old_connections, connections, transaction
from django.test.utils import CaptureQueriesContext

pytest.importorskip("MySQLdb")

from orm_app import databases, health
from orm_app.mysql_pool.traces import left_by
from tests.foundation.databases import second_database

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def database(mariadb_url: str, django_db_setup: None, django_db_blocker: Any) -> Iterator[str]:
    with (
        django_db_blocker.unblock(),
        second_database(f"{mariadb_url}?pool_max_size=3&pool_timeout=30", app="orm_app") as alias,
    ):
        yield alias


@pytest.fixture
def alias(database: str, django_db_blocker: Any) -> Iterator[str]:
    """With a new pool."""
    with django_db_blocker.unblock():
        connections[database].close()
        connections[database].close_pool()
        yield database
        connections[database].close()
        Group.objects.using(database).filter(name__startswith="test ").delete()
        connections[database].close()


@pytest.fixture
def connection(alias: str) -> Any:
    return connections[alias]


def ask(connection: Any, sql: str, *parameters: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def session_of(connection: Any) -> int:
    return int(ask(connection, "SELECT CONNECTION_ID()"))


def kill(alias: str, number: int) -> None:
    """The server ends this session."""
    with contextlib.closing(connections[alias].copy()) as other:
        other.settings_dict["OPTIONS"] = other.settings_dict["OPTIONS"] | {"pool": False}
        ask(other, f"KILL CONNECTION {number}")
        while ask(other, "SELECT COUNT(*) FROM information_schema.processlist WHERE id = %s", number):
            time.sleep(0.01)


def elsewhere(call: Any) -> Any:
    """In a thread of its own, which gives its connection back."""

    def run() -> Any:
        try:
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result(60)


# --- giving back -----------------------------------------------------------------------------------------------------


def test_close__given_back__the_same_session_serves_another_thread(alias, connection):
    first = session_of(connection)
    connection.close()
    assert connection.connection is None
    assert elsewhere(lambda: session_of(connections[alias])) == first
    assert connection.pool.get_stats()["connections_num"] == 1


def test_request_end__connection_goes_back(connection):
    session_of(connection)
    assert connection.pool.get_stats()["pool_available"] == 0
    request_finished.disconnect(close_old_connections)
    try:
        close_old_connections()
    finally:
        request_finished.connect(close_old_connections)
    assert connection.pool.get_stats()["pool_available"] == 1


def test_close__with_an_open_transaction__rolled_back_for_the_next(alias, connection):
    connection.set_autocommit(False)
    Group.objects.using(alias).create(name="test lost")
    number = session_of(connection)
    connection.close()
    assert session_of(connection) == number
    assert connection.get_autocommit()
    assert not Group.objects.using(alias).filter(name="test lost").exists()


@pytest.mark.parametrize(
    ("sql", "trace"),
    [
        ("SET SESSION sql_mode = ''", "SELECT @@sql_mode = ''"),
        ("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SELECT @@tx_isolation = 'SERIALIZABLE'"),
        ("SET @left = 1", "SELECT @left IS NOT NULL"),
        ("SELECT GET_LOCK('left', 0)", "SELECT IS_USED_LOCK('left') = CONNECTION_ID()"),
        ("USE information_schema", "SELECT DATABASE() = 'information_schema'"),
        ("CREATE TEMPORARY TABLE left_behind (id INT)", "SELECT COUNT(*) FROM left_behind"),
    ],
)
def test_close__session_was_changed__the_next_one_sees_nothing_of_it(connection, sql, trace):
    number = session_of(connection)
    ask(connection, sql)
    connection.close()
    assert session_of(connection) != number
    if "left_behind" in sql:
        with pytest.raises(DatabaseError, match="left_behind"):
            ask(connection, trace)
    else:
        assert not ask(connection, trace)
    assert connection.pool.get_stats()["returns_dirty"] == 1


def test_set_transaction__for_one_transaction_only__session_stays(connection):
    number = session_of(connection)
    ask(connection, "SET TRANSACTION READ ONLY")
    connection.close()
    assert session_of(connection) == number
    with transaction.atomic(using=connection.alias):
        Group.objects.using(connection.alias).create(name="test written")


def test_connect__again__asks_the_server_nothing_that_it_knows(connection):
    session_of(connection)
    connection.close()
    with CaptureQueriesContext(connection) as captured:
        session_of(connection)
    assert [query["sql"] for query in captured] == ["SELECT CONNECTION_ID()"]
    assert ask(connection, "SELECT @@tx_isolation") == "READ-COMMITTED"


def test_close__unread_rows__not_lent_again(connection):
    from MySQLdb.cursors import SSCursor

    number = session_of(connection)
    cursor = connection.connection.cursor(SSCursor)
    cursor.execute("SELECT seq FROM seq_1_to_100000")
    connection.close()
    assert session_of(connection) != number
    assert connection.pool.get_stats()["returns_bad"] == 1


# --- as plain mysqlclient ---------------------------------------------------------------------------------------------


def test_is_usable__after_the_server_ended_the_session__false(alias, connection):
    number = session_of(connection)
    kill(alias, number)
    assert not connection.is_usable()
    connection.close()
    assert session_of(connection) != number


def test_is_usable__after_close__false_without_an_error(connection):
    session_of(connection)
    connection._close()
    assert not connection.is_usable()
    connection.close()


@pytest.fixture
def kept(connection):
    """As Django's own tests of health checks: the connection outlives the request."""
    session_of(connection)  # the pool is there before the settings are those it would refuse
    connection.close()
    with mock.patch.dict(connection.settings_dict, CONN_MAX_AGE=None):
        yield connection
        connection.close()


def test_health_check__failed__another_session_and_only_one_check(kept):
    with mock.patch.object(kept, "is_usable", side_effect=AssertionError):
        first = session_of(kept)
    kept.close_if_unusable_or_obsolete()
    with mock.patch.object(kept, "is_usable", return_value=False) as is_usable:
        second = session_of(kept)
        assert second != first
        assert session_of(kept) == second
    assert is_usable.call_count == 1
    kept.close_if_unusable_or_obsolete()
    assert session_of(kept) == second


def test_health_check__failed_before_a_transaction__another_session(kept):
    first = session_of(kept)
    kept.close_if_unusable_or_obsolete()
    with mock.patch.object(kept, "is_usable", return_value=False):
        kept.set_autocommit(False)
        assert session_of(kept) != first
        kept.commit()
        kept.set_autocommit(True)


def test_health_check__errors_occurred_and_alive__kept_without_a_second_check(kept):
    raw = (session_of(kept), kept.connection)[1]
    kept.errors_occurred = True
    kept.close_if_unusable_or_obsolete()
    assert kept.connection is raw
    with mock.patch.object(kept, "is_usable", side_effect=AssertionError):
        session_of(kept)


def test_health_check__switched_off__never_asked(kept):
    with mock.patch.dict(kept.settings_dict, CONN_HEALTH_CHECKS=False):
        first = session_of(kept)
        kept.close_if_unusable_or_obsolete()
        with mock.patch.object(kept, "is_usable", side_effect=AssertionError):
            assert session_of(kept) == first


def test_atomic__closed_by_the_client__no_further_query_and_rolled_back(alias, connection):
    def write(name: str) -> None:
        Group.objects.using(alias).create(name=name)

    with transaction.atomic(using=alias):
        write("test one")
        connection.close()
        with pytest.raises(Error):
            write("test two")
    assert not Group.objects.using(alias).filter(name__startswith="test ").exists()
    write("test three")


def test_atomic__session_ended_by_the_server__error_then_usable_again(alias, connection):
    def lose() -> None:
        with transaction.atomic(using=alias):
            kill(alias, session_of(connection))
            session_of(connection)

    with pytest.raises(OperationalError):
        lose()
    connection.close()
    assert session_of(connection)


def test_repr_and_copy__as_django(connection):
    assert repr(connection) == f"<DatabaseWrapper vendor='mysql' alias='{connection.alias}'>"
    assert connection.copy().pool is connection.pool


def test_test_database__made_and_dropped_with_a_pool(alias, connection):
    before = connection.settings_dict["NAME"]
    assert ask(connection, "SELECT DATABASE()") == before
    connection.close()
    name = connection.creation._get_test_db_name()
    with mock.patch.object(connection.creation, "log"):
        connection.creation._create_test_db(verbosity=0, autoclobber=True)
        connection.settings_dict["NAME"] = name
        assert ask(connection, "SELECT DATABASE()") == name
        connection.close()
        connection.creation.destroy_test_db(before, verbosity=0)
    assert ask(connection, "SELECT DATABASE()") == before


# --- as a pool --------------------------------------------------------------------------------------------------------


def test_exhausted__clear_operational_error_then_recovers(alias, connection, monkeypatch):
    held = [connection.pool.getconn() for _ in range(3)]
    monkeypatch.setattr(connection.pool, "options", replace(connection.pool.options, timeout=1.0))
    began = time.monotonic()
    with pytest.raises(OperationalError, match=r"all 3 connections .*pool_max_size") as caught:
        session_of(connection)
    assert 0.9 < time.monotonic() - began < 25
    assert type(caught.value.__cause__).__name__ == "PoolTimeout"
    monkeypatch.undo()
    for raw in held:
        connection.pool.putconn(raw)
    assert session_of(connection)


def test_health__exhausted_or_not__one_line(alias, connection, monkeypatch):
    assert health.check(alias).detail == "mysql answers"
    monkeypatch.setattr(health, "_PROBE_TIMEOUT_S", 0.2)
    held = [connection.pool.getconn() for _ in range(3)]
    found = health.check(alias)
    assert (found.ok, found.detail.startswith("all 3 connections")) == (False, True)
    for raw in held:
        connection.pool.putconn(raw)


def test_threads__many_requests__never_more_sessions_than_max_size(alias, connection):
    def request(_: int) -> int:
        try:
            return session_of(connections[alias])
        finally:
            connections[alias].close()

    with ThreadPoolExecutor(8) as pool:
        sessions = set(pool.map(request, range(200)))
    stats = connection.pool.get_stats()
    assert len(sessions) <= 3
    assert stats["connections_num"] <= 3
    assert (stats["requests_num"], stats["requests_errors"]) == (200, 0)


def test_server_ends_idle_sessions__nobody_meets_an_error(alias, connection):
    numbers = set()
    for raw in [connection.pool.getconn() for _ in range(3)]:
        numbers.add(raw.thread_id())
        connection.pool.putconn(raw)
    for number in numbers:
        kill(alias, number)
    for _ in range(3):
        assert elsewhere(lambda: session_of(connections[alias])) not in numbers
    assert connection.pool.get_stats()["connections_lost"] >= 1


def test_thread_ends_without_close__its_connection_is_not_missed_for_long(alias, connection):
    for _ in range(5):
        thread = threading.Thread(target=lambda: session_of(connections[alias]))
        thread.start()
        thread.join(60)
    assert session_of(connection)
    assert connection.pool.get_stats()["pool_size"] <= 3


def test_fork__child_opens_its_own__parents_session_lives_on(alias, connection):
    idle = connection.pool.getconn()
    connection.pool.putconn(idle)
    number = session_of(connection)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            own = session_of(connection)
            connection.close()
            os.write(writing, b"ok" if own != number else b"no")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(writing)
    assert os.read(reading, 2) == b"ok"
    os.close(reading)
    assert session_of(connection) == number
    assert connection.pool.get_stats()["connections_num"] == 1


@pytest.mark.parametrize(
    ("changed", "says"),
    [({"CONN_MAX_AGE": 60}, "CONN_MAX_AGE = 0"), ({"OPTIONS": {"pool": {"size": 3}}}, "unknown key 'size'")],
)
def test_pool__settings_that_cannot_be__say_which(connection, changed, says):
    connection.close_pool()
    patched = mock.patch.dict(connection.settings_dict, changed)
    with patched, pytest.raises(ImproperlyConfigured, match=says):
        _ = connection.pool


def test_without_pool__plain_backend(alias, connection):
    with contextlib.closing(connection.copy()) as plain:
        plain.settings_dict["OPTIONS"] = plain.settings_dict["OPTIONS"] | {"pool": False}
        assert plain.pool is None
        number = session_of(plain)
        plain.close()
        assert session_of(plain) != number


def test_close_pool__next_query_opens_another(connection):
    number = session_of(connection)
    connection.close()
    connection.close_pool()
    assert session_of(connection) != number


@pytest.mark.parametrize(
    ("sql", "left"),
    [
        ("SELECT 1", "nothing"),
        ("  (SELECT 1) UNION (SELECT 2)", "nothing"),
        ("insert into t values (%s)", "nothing"),
        ("SELECT @@sql_mode", "nothing"),
        ("SELECT 1;", "nothing"),
        ("SAVEPOINT `s1`", "nothing"),
        ("RELEASE SAVEPOINT `s1`", "nothing"),
        ("start  transaction", "transaction"),
        ("ROLLBACK AND CHAIN", "transaction"),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "transaction"),
        ("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE", "session"),
        ("SELECT @n := 1", "session"),
        ("SELECT get_lock('a', 1)", "session"),
        ("SELECT 1; SET sql_mode = ''", "session"),
        ("/*!50000 SET sql_mode = '' */", "session"),
        ("SELECTED", "session"),
        ("CALL p()", "session"),
        ("LOCK TABLES t READ", "session"),
        (b"SELECT 1", "session"),
    ],
)
def test_left_by__statement__what_a_rollback_takes_back_and_what_it_does_not(sql, left):
    assert left_by(sql) == left


def test_close__nothing_to_roll_back__no_round_trip(connection):
    session_of(connection)
    with mock.patch.object(type(connection.connection), "rollback", side_effect=AssertionError):
        connection.close()
    assert connection.pool.get_stats()["pool_available"] == 1


@pytest.mark.parametrize("how", ["begin", "raw begin", "raw rows", "failed"])
def test_close__maybe_something_to_roll_back__rolled_back(alias, connection, how):
    number = session_of(connection)
    if how == "begin":
        ask(connection, "START TRANSACTION")
        Group.objects.using(alias).create(name="test lost")
    elif how == "raw begin":
        connection.connection.begin()
        Group.objects.using(alias).create(name="test lost")
    elif how == "raw rows":
        connection.connection.query(b"SELECT 1")
    else:
        with pytest.raises(DatabaseError):
            ask(connection, "SELECT no_such_column FROM nowhere")
        assert connection.connection.session.is_doubtful
    connection.close()
    assert (session_of(connection) == number) is (how != "raw rows")
    assert not connection.connection.session.is_doubtful
    assert not Group.objects.using(alias).filter(name="test lost").exists()


def test_from_url__entry_builds_a_pool(connection):
    chosen = connection.pool.options
    assert (chosen.min_size, chosen.max_size, chosen.max_lifetime) == (1, 3, databases._POOL["max_lifetime"])
