from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator

import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from django.db import InterfaceError, OperationalError, connections, transaction
from django.utils import timezone

from foundation.models import AuditEntry
from orm_app import db
from orm_app.transactions import is_transient
from tests.foundation.databases import second_database


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.service)])
def alias(request, tmp_path, django_db_blocker) -> Iterator[str]:
    """A database of this test's own, in which several threads have their own connections and really commit."""
    url = f"sqlite:///{tmp_path}/t.sqlite3?timeout=60"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_url") + "?pool_max_size=4"
    with django_db_blocker.unblock(), second_database(url) as name:
        AuditEntry.objects.using(name).expire(timezone.now())  # of other modules on the same server
        yield name
        AuditEntry.objects.using(name).expire(timezone.now())


def insert(actor: str, alias: str) -> None:
    AuditEntry.objects.using(alias).create(actor=actor, action="a.b", target_label="c", source="cli")


ainsert = sync_to_async(insert)


def actors(alias: str) -> set[str]:
    return set(AuditEntry.objects.using(alias).values_list("actor", flat=True))


async def stored(alias: str) -> set[str]:
    """What another connection sees."""

    def look() -> set[str]:
        try:
            return actors(alias)
        finally:
            connections[alias].close()

    return await asyncio.to_thread(look)


# --- sync ------------------------------------------------------------------------------------------------------------
def test_block__commit_and_exception__all_or_nothing(alias):
    with db.transaction(using=alias):
        insert("kept", alias)
    with pytest.raises(LookupError), db.transaction(using=alias):
        insert("lost", alias)
        raise LookupError
    assert actors(alias) == {"kept"}


def test_block__nested__inner_failure_keeps_the_outer(alias):
    with db.transaction(using=alias):
        insert("outer", alias)
        with pytest.raises(LookupError), db.transaction(using=alias):
            insert("inner", alias)
            raise LookupError
    assert actors(alias) == {"outer"}


def test_block__durable_inside_another__refused(alias):
    with db.transaction(using=alias), pytest.raises(RuntimeError, match="durable"):
        db.transaction(using=alias, durable=True).__enter__()


def test_block__connection_closed_within__says_that_nothing_is_stored(alias):
    with pytest.raises(InterfaceError, match="nothing of it is stored"), db.transaction(using=alias):
        insert("lost", alias)
        connections[alias].close()
    assert actors(alias) == set()
    with db.transaction(using=alias):
        insert("after", alias)
    assert actors(alias) == {"after"}


def test_decorator__function__commits_or_rolls_back_and_keeps_its_name(alias):
    @db.transaction(using=alias)
    def write(actor: str, *, fail: bool) -> str:
        insert(actor, alias)
        if fail:
            raise LookupError
        return actor

    assert write("kept", fail=False) == "kept"
    with pytest.raises(LookupError):
        write("lost", fail=True)
    assert actors(alias) == {"kept"}
    assert write.__name__ == "write"


def test_decorator__generator__refused():
    def rows() -> Iterator[int]:
        yield 1

    async def arows():
        yield 1

    for function in (rows, arows):
        with pytest.raises(TypeError, match="open the transaction inside"):
            db.transaction()(function)


# --- async -----------------------------------------------------------------------------------------------------------
async def test_async__two_tasks__one_rolls_back_and_the_others_row_survives(alias):
    """What `sync_to_async(atomic)` gets wrong: there both tasks share a connection, and the committed row is lost."""
    bad_is_in, good_is_over = asyncio.Event(), asyncio.Event()

    async def bad() -> None:
        async with db.transaction(using=alias):
            await ainsert("bad", alias)
            bad_is_in.set()
            if (
                connections[alias].vendor == "sqlite"
            ):  # one writer: the good one waits at its BEGIN until we are over
                await asyncio.sleep(0.05)
            else:
                await good_is_over.wait()
            raise LookupError

    async def good() -> None:
        await bad_is_in.wait()
        async with db.transaction(using=alias):
            await ainsert("good", alias)
        good_is_over.set()

    results = await asyncio.gather(bad(), good(), return_exceptions=True)
    assert [type(result) for result in results] == [LookupError, type(None)]
    assert await stored(alias) == {"good"}


async def test_async__rows_outside_the_block__not_seen_before_the_commit(alias):
    async with db.transaction(using=alias):
        await ainsert("a", alias)
        seen = await sync_to_async(actors)(alias)
        seen_outside = await stored(alias)
    assert (seen, seen_outside) == ({"a"}, set())


async def test_async__nested__savepoint_on_the_same_connection(alias):
    async with db.transaction(using=alias):
        await ainsert("outer", alias)
        outer = await sync_to_async(_connection_id)(alias)
        with pytest.raises(LookupError):
            async with db.transaction(using=alias):
                assert await sync_to_async(_connection_id)(alias) == outer
                await ainsert("inner", alias)
                raise LookupError
        with_sync_code = sync_to_async(_insert_in_a_block)
        await with_sync_code("sync", alias)
    assert await stored(alias) == {"outer", "sync"}


async def test_async__sibling_tasks_with_nested_blocks__take_turns(alias):
    async def child(actor: str, *, fail: bool) -> None:
        async with db.transaction(using=alias):
            await ainsert(actor, alias)
            await asyncio.sleep(0)
            if fail:
                raise LookupError

    async with db.transaction(using=alias):
        children = [child("a", fail=False), child("b", fail=True), child("c", fail=False)]
        results = await asyncio.gather(*children, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), LookupError, type(None)]
    assert await stored(alias) == {"a", "c"}


async def test_async__cancelled_in_the_middle__rolled_back_and_nothing_left(alias):
    is_in = asyncio.Event()

    async def work() -> None:
        async with db.transaction(using=alias):
            await ainsert("cancelled", alias)
            is_in.set()
            await asyncio.sleep(60)

    task = asyncio.ensure_future(work())
    await is_in.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await stored(alias) == set()
    await _assert_no_thread_is_left()


@pytest.mark.parametrize("step", ["begin", "commit"])
async def test_async__cancelled_while_beginning_or_committing__finished_first(alias, step, monkeypatch):
    started, go_on = threading.Event(), threading.Event()
    plain = getattr(transaction.Atomic, "__enter__" if step == "begin" else "__exit__")

    def slow(self, *args):
        started.set()
        assert go_on.wait(60)
        return plain(self, *args)

    async def work() -> None:
        async with db.transaction(using=alias):
            await sync_to_async(AuditEntry.objects.using(alias).bulk_create)(
                [AuditEntry(actor="a", action="a.b", target_label="c", source="cli")]
            )
            await db.on_commit(lambda: hooks.append("sync"), alias)
            await db.on_commit(hook, alias)
            if step == "commit":
                monkeypatch.setattr(transaction.Atomic, "__exit__", slow)

    hooks: list[str] = []

    async def hook() -> None:
        hooks.append("async")

    if step == "begin":
        monkeypatch.setattr(transaction.Atomic, "__enter__", slow)
    task = asyncio.ensure_future(work())
    assert await asyncio.to_thread(started.wait, 60)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()
    assert await stored(alias) == ({"a"} if step == "commit" else set())
    assert hooks == (
        ["sync", "async"] if step == "commit" else []
    )  # what follows a commit is not lost with the task
    await _assert_no_thread_is_left()


async def test_async__task_outlives_the_block__its_hook_is_not_lost_silently(alias):
    is_over, ran = asyncio.Event(), []

    async def hook() -> None:
        ran.append(1)

    async def late() -> None:
        await is_over.wait()
        await db.on_commit(hook, alias)

    async with db.transaction(using=alias):
        task = asyncio.ensure_future(late())
    is_over.set()
    await task
    assert ran == [1]  # there is no transaction any more: at once


async def test_async__generator_left_with_its_block_open__closed_without_an_error(alias):
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))

    async def rows():
        async with db.transaction(using=alias):
            await ainsert("a", alias)
            while True:
                yield 1

    async def leave_it() -> None:
        async for _ in rows():
            break

    await asyncio.ensure_future(leave_it())
    await _assert_no_thread_is_left()
    assert (await stored(alias), errors) == (set(), [])


async def test_async__body_and_hooks_fail__error_comes_out_and_nothing_left(alias):
    def hook() -> None:
        raise LookupError("hook")

    with pytest.raises(LookupError, match="hook"):
        async with db.transaction(using=alias):
            await ainsert("a", alias)
            await sync_to_async(transaction.on_commit)(hook, alias)
    assert await stored(alias) == {"a"}
    await _assert_no_thread_is_left()


@pytest.mark.service
async def test_async__many_on_postgresql__every_connection_returns_to_the_pool(
    postgresql_url, django_db_blocker
):
    with django_db_blocker.unblock():
        manager = second_database(f"{postgresql_url}?pool_max_size=4&pool_timeout=60")
        alias = await sync_to_async(manager.__enter__)()
        try:

            async def work(number: int) -> None:
                async with db.transaction(using=alias):
                    await ainsert(str(number), alias)
                    if number % 3 == 0:
                        raise LookupError

            await asyncio.gather(*(work(n) for n in range(24)), return_exceptions=True)
            await sync_to_async(lambda: connections[alias].close())()
            assert len(await stored(alias)) == 16
            for _ in range(6000):  # one more may still be on its way to the pool
                stats = await sync_to_async(lambda: connections[alias].pool.get_stats())()
                if stats["pool_size"] == stats["pool_available"]:
                    break
                await asyncio.sleep(0.01)
            assert stats["pool_size"] == stats["pool_available"] <= 4
        finally:
            await sync_to_async(lambda: AuditEntry.objects.using(alias).expire(timezone.now()))()
            await sync_to_async(manager.__exit__)(None, None, None)


@pytest.mark.service
@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
async def test_async__each_request_holds_a_connection_already__blocks_do_not_wait_for_each_other(
    engine, request, django_db_blocker
):
    """Under ASGI a request's thread keeps the connection of its first query until the request ends."""
    url = request.getfixturevalue(f"{engine}_url")

    async def answer(alias: str, number: int, everyone: asyncio.Barrier) -> None:
        async with ThreadSensitiveContext():
            try:
                await stored_here(alias)
                await everyone.wait()
                async with db.transaction(using=alias):
                    await ainsert(str(number), alias)
            finally:
                await sync_to_async(connections.close_all)()

    stored_here = sync_to_async(actors)
    with django_db_blocker.unblock():
        manager = second_database(f"{url}?pool_max_size=3&pool_timeout=60")
        alias = await sync_to_async(manager.__enter__)()
        try:
            await sync_to_async(lambda: connections[alias].close())()
            everyone = asyncio.Barrier(3)
            await asyncio.gather(*(answer(alias, number, everyone) for number in range(3)))
            assert await stored(alias) == {"0", "1", "2"}
        finally:
            await sync_to_async(lambda: AuditEntry.objects.using(alias).expire(timezone.now()))()
            await sync_to_async(manager.__exit__)(None, None, None)


async def test_async__decorator__coroutine_function_stays_one(alias):
    @db.transaction(using=alias)
    async def write(actor: str) -> str:
        await ainsert(actor, alias)
        return actor

    assert asyncio.iscoroutinefunction(write)
    assert await asyncio.gather(*(write(actor) for actor in "abc")) == ["a", "b", "c"]
    assert await stored(alias) == {"a", "b", "c"}


async def test_async__same_object_entered_twice__refused(alias):
    opened = db.transaction(using=alias)
    async with opened:
        with pytest.raises(RuntimeError, match="open already"):
            async with opened:
                pass


def test_async__below_async_to_sync_in_a_transactions_thread__no_deadlock(alias):
    async def inner() -> None:
        async with db.transaction(using=alias):
            await ainsert("inner", alias)

    async def outer() -> None:
        async with db.transaction(using=alias):
            await sync_to_async(async_to_sync(inner))()

    async_to_sync(outer)()
    assert actors(alias) == {"inner"}


# --- retry -----------------------------------------------------------------------------------------------------------
def busy(code: int = sqlite3.SQLITE_BUSY) -> OperationalError:
    error = OperationalError("database is locked")
    error.__cause__ = sqlite3.OperationalError("database is locked")
    error.__cause__.sqlite_errorcode = code
    return error


def test_retry__transient_error_twice__third_run_commits_once(alias):
    runs = []

    @db.transaction(using=alias, retry=2)
    def write() -> int:
        runs.append(1)
        insert(f"run{len(runs)}", alias)
        if len(runs) < 3:
            raise busy()
        return len(runs)

    assert write() == 3
    assert actors(alias) == {"run3"}


async def test_retry__async__runs_again(alias):
    runs = []

    @db.transaction(using=alias, retry=1)
    async def write() -> None:
        runs.append(1)
        await ainsert(f"run{len(runs)}", alias)
        if len(runs) < 2:
            raise busy()

    await write()
    assert await stored(alias) == {"run2"}


def test_retry__used_up_or_not_transient__raised(alias):
    runs = []

    @db.transaction(using=alias, retry=1)
    def write(error: OperationalError) -> None:
        runs.append(1)
        raise error

    for error, expected in ((busy(), 2), (busy(sqlite3.SQLITE_READONLY), 1)):
        runs.clear()
        with pytest.raises(OperationalError):
            write(error)
        assert len(runs) == expected


def test_retry__inside_another_block__left_to_the_outermost(alias):
    runs = []

    @db.transaction(using=alias, retry=3)
    def write() -> None:
        runs.append(1)
        raise busy()

    with pytest.raises(OperationalError), db.transaction(using=alias):
        write()
    assert len(runs) == 1


def test_retry__commit_hook_fails_like_a_busy_database__work_is_not_done_twice(alias):
    def hook() -> None:
        raise busy()

    @db.transaction(using=alias, retry=3)
    def write() -> None:
        insert("once", alias)
        transaction.on_commit(hook, using=alias)

    with pytest.raises(OperationalError):
        write()
    assert AuditEntry.objects.using(alias).count() == 1


def test_retry__as_a_block__refused():
    with pytest.raises(TypeError, match="decorator"), db.transaction(retry=1):
        pass


@pytest.mark.service
def test_retry__real_serialization_failure_on_postgresql__second_run_succeeds(
    postgresql_url, django_db_blocker
):
    with django_db_blocker.unblock(), second_database(f"{postgresql_url}?pool_max_size=4") as alias:
        runs = []

        @db.transaction(using=alias, retry=3)
        def write() -> None:
            runs.append(1)
            with connections[alias].cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
                cursor.execute("SELECT count(*) FROM foundation_auditentry")
            if len(runs) == 1:
                other = threading.Thread(target=_write_serializable, args=(alias,))
                other.start()
                other.join()
            insert("first", alias)

        write()
        assert len(runs) == 2
        assert actors(alias) == {"first", "other"}
        AuditEntry.objects.using(alias).expire(timezone.now())


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (type("SerializationFailure", (Exception,), {"sqlstate": "40001"})(), True),
        (type("UniqueViolation", (Exception,), {"sqlstate": "23505"})(), False),
        (type("OperationalError", (Exception,), {"__module__": "MySQLdb"})(1213, "Deadlock found"), True),
        (type("OperationalError", (Exception,), {"__module__": "MySQLdb"})(2006, "gone away"), False),
        (busy(sqlite3.SQLITE_BUSY_SNAPSHOT).__cause__, True),
        (ValueError(1213), False),
    ],
)
def test_is_transient__driver_error__by_its_code(cause, expected):
    error = OperationalError(*cause.args)
    error.__cause__ = cause
    assert is_transient(error) is expected


def _connection_id(alias: str) -> int:
    return id(connections[alias])


def _insert_in_a_block(actor: str, alias: str) -> None:
    with db.transaction(using=alias):
        insert(actor, alias)


def _write_serializable(alias: str) -> None:
    try:
        with db.transaction(using=alias):
            with connections[alias].cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            assert "other" not in actors(alias)
            insert("other", alias)
    finally:
        connections[alias].close()


async def _assert_no_thread_is_left() -> None:
    for _ in range(6000):
        if not any(thread.name.startswith("transaction") for thread in threading.enumerate()):
            return
        await asyncio.sleep(0.01)
    pytest.fail("the thread of a transaction is still there")
