"""The migration lock by itself: who waits, who is told, what a lost one does."""

from __future__ import annotations

import contextlib
import os
import threading

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from orm_app import migration_limits, migration_lock
from orm_app.migration_limits import Limits
from orm_app.migration_lock import CannotLock, LockLost, LockNotFree, held

from .migrating import ENGINES, alias_of, url_of

pytestmark = [pytest.mark.service, pytest.mark.django_db(transaction=True)]


@pytest.fixture(params=ENGINES)
def alias(request, tmp_path, django_db_blocker):
    with contextlib.ExitStack() as stack, django_db_blocker.unblock():
        yield stack.enter_context(alias_of(url_of(request.param, request, tmp_path, stack)))


def in_thread(work):
    """On a connection of its own. Returns what it returned or raised."""
    result = []

    def run():
        try:
            result.append(work())
        except Exception as error:
            result.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    return result[0]


def test_held__by_another_connection__not_free_and_free_afterwards(alias):
    told = []

    def take():
        with held(connections[alias], wait_s=0.5, tell=told.append) as lock:
            lock.check()
            return "held"

    with held(connections[alias], wait_s=1, tell=told.append) as mine:
        mine.check()
        refused = in_thread(take)
        assert isinstance(refused, LockNotFree)
        assert "another migrate (" in str(refused)
        assert len(told) == 1
        assert "waiting for it, at most 0 s" in told[0]
        with held(connections[alias], wait_s=0, tell=told.append):
            pass  # a migrate inside a migrate
        mine.check()
    assert in_thread(take) == "held"


def test_held__the_connection_is_gone__lock_lost_and_free(alias):
    if connections[alias].vendor == "sqlite":
        pytest.skip("a file lock is not the connection's")
    with (
        pytest.raises(LockLost, match="over a direct connection"),
        held(connections[alias], wait_s=1, tell=print) as mine,
    ):
        if hasattr(connections[alias], "close_pool"):
            connections[alias].close_pool()
        connections[alias].close()
        mine.check()


def test_in_memory__nobody_else_sees_it__no_lock():
    class InMemory:
        vendor, alias = "sqlite", "memory"

        @staticmethod
        def is_in_memory_db():
            return True

    with held(InMemory(), wait_s=0, tell=print) as lock:
        lock.check()


def test_limits__in_the_block_and_as_before_after_it(alias):
    connection = connections[alias]
    ask = {"postgresql": "SHOW lock_timeout", "mysql": "SELECT @@lock_wait_timeout"}.get(connection.vendor)
    if ask is None:
        with migration_limits.applied(connection, Limits(1, 1, 1)):
            return

    def value():
        with connection.cursor() as cursor:
            cursor.execute(ask)
            return str(cursor.fetchone()[0])

    before = value()
    with migration_limits.applied(connection, Limits(lock_timeout_s=3, statement_timeout_s=60)):
        assert value() in ("3s", "3")
    assert value() == before


def test_take__a_clock_that_moves__told_once_and_then_every_ten_seconds():
    class Lock:
        def takes(self):
            return False

        def holder(self):
            return "process 1"

    clock = iter(range(0, 1000))
    told = []
    with pytest.raises(LockNotFree, match="after 100 s"):
        migration_lock._take(
            Lock(), wait_s=100, tell=told.append, now=lambda: next(clock), sleep=lambda s: None
        )
    assert 2 <= len(told) <= 12


def test_sqlite__the_folder_is_not_there__one_line_that_says_so(tmp_path, django_db_blocker):
    with django_db_blocker.unblock(), alias_of(f"sqlite:///{tmp_path}/none/m.sqlite3") as alias:
        with (
            pytest.raises(CannotLock, match=r"none/m.sqlite3.migrate.lock: No such file"),
            held(connections[alias], wait_s=0, tell=print),
        ):
            pass
        with pytest.raises(CommandError, match="beside SQLite's"):
            call_command("migrate", database=alias, verbosity=0)


def test_sqlite__the_lock_file_is_another_users__it_is_locked_all_the_same(
    tmp_path, django_db_blocker, monkeypatch
):
    (tmp_path / "m.sqlite3.migrate.lock").write_text("1")
    plain = os.open

    def open_as_somebody_else(path, flags, *mode):
        if flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied")
        return plain(path, flags, *mode)

    with django_db_blocker.unblock(), alias_of(f"sqlite:///{tmp_path}/m.sqlite3") as alias:
        monkeypatch.setattr(migration_lock.os, "open", open_as_somebody_else)
        locks = [migration_lock._lock(connections[alias]) for _ in range(2)]
        assert [lock.takes() for lock in locks] == [True, False]
        locks[0].free()
        assert locks[1].takes()
        locks[1].free()
