"""Isolation, time limits, hooks and retries of db.transaction on the three engines."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, OperationalError, connections

from orm_app import db
from orm_app.transaction_bounds import TransactionTimeout, check
from orm_app.transactions import is_transient

from .snippets_app import databases

_SLEEP = {"postgresql": "SELECT pg_sleep(%s)", "mysql": "SELECT sleep(%s)"}
_COUNTING = (
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < %s) SELECT max(n) FROM c"
)


@pytest.fixture(
    scope="module",
    params=[
        databases.ENGINES[0],
        *(pytest.param(e, marks=pytest.mark.service) for e in databases.ENGINES[1:]),
    ],
)
def engine(request, tmp_path_factory, django_db_blocker) -> Iterator[str]:
    url = databases.url_of(request.param, request, tmp_path_factory.mktemp("bounds"))
    with django_db_blocker.unblock(), databases.snippets_database(url) as alias:
        yield alias


@pytest.fixture
def users(engine):
    from .snippets_app.models import User

    databases.empty(engine)
    User.objects.create(username="ann", email="ann@x")
    yield db.query(User)
    connections[engine].close()


def sleep(alias: str, seconds: float) -> None:
    """A statement that takes this long; SQLite has none, so that one counts for long."""
    statement = _SLEEP.get(connections[alias].vendor)
    with connections[alias].cursor() as cursor:
        cursor.execute(statement or _COUNTING, [seconds if statement else 100_000_000])


def limits(alias: str) -> object:
    """What the engine says about the session's limits."""
    vendor = connections[alias].vendor
    sql = {
        "postgresql": "SHOW statement_timeout",
        "mysql": "SELECT @@innodb_lock_wait_timeout, @@max_statement_time",
        "sqlite": "PRAGMA busy_timeout",
    }[vendor]
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()


def names(query) -> set[str]:
    return set(query.values("username", flat=True))


def add(users, name: str) -> None:
    users.bulk_insert([{"username": name, "email": f"{name}@x"}])


# --- isolation ---
def test_isolation__each_level__is_the_engines(users, engine):
    for level in ("serializable", "repeatable_read", "READ COMMITTED"):
        with db.transaction(using=engine, isolation=level):
            assert users.count() == 1
            if connections[engine].vendor == "postgresql":
                shown = db.raw("SHOW transaction_isolation", using=engine)
                assert shown == [{"transaction_isolation": level.lower().replace("_", " ")}]
    with pytest.raises(ValueError, match="unknown isolation 'snapshot': use read uncommitted"):
        db.transaction(isolation="snapshot")


def test_isolation__inside_a_weaker_block__refused(users, engine):
    if connections[engine].vendor == "sqlite":
        pytest.skip("always serializable")
    with db.transaction(using=engine), pytest.raises(RuntimeError, match="the outermost block chooses"):
        db.transaction(using=engine, isolation="serializable").__enter__()
    with (
        db.transaction(using=engine, isolation="serializable"),
        db.transaction(using=engine, isolation="repeatable read"),
    ):
        assert users.count() == 1


def test_isolation__serializable__a_conflict_is_retried_and_both_are_counted(users, engine):
    """Two transactions count the users and add one named after the count: only one after the other is right."""
    barrier, runs, errors = threading.Barrier(2, timeout=60), [], []

    @db.transaction(using=engine, isolation="serializable", retry=6, timeout_s=120)
    def add_next() -> None:
        runs.append(1)
        number = users.count()
        if len(runs) <= 2 and connections[engine].vendor != "sqlite":
            barrier.wait()
        add(users, f"u{number}")

    def work() -> None:
        try:
            add_next()
        except (DatabaseError, threading.BrokenBarrierError) as error:
            errors.append(error)
        finally:
            connections[engine].close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    assert names(users) == {"ann", "u1", "u2"}
    assert len(runs) >= (2 if connections[engine].vendor == "sqlite" else 3)


# --- time ---
def test_timeout__a_long_statement__cut_and_rolled_back_and_limits_restored(users, engine):
    before, began = limits(engine), time.monotonic()
    with pytest.raises(TransactionTimeout), db.transaction(using=engine, timeout_s=0.3):
        add(users, "lost")
        sleep(engine, 20)
    assert time.monotonic() - began < 19
    assert names(users) == {"ann"}
    assert limits(engine) == before


def test_timeout__between_statements__the_next_one_and_the_commit_are_refused(users, engine):
    for work in (lambda: users.count(), lambda: None):
        with pytest.raises(TransactionTimeout), db.transaction(using=engine, timeout_s=0.2):
            add(users, "lost")
            time.sleep(0.25)
            work()
    assert names(users) == {"ann"}


def test_timeout__in_time_and_nested__commits_and_restores(users, engine):
    before = limits(engine)
    with db.transaction(using=engine, timeout_s=55):
        with db.transaction(using=engine, timeout_s=10):
            add(users, "inner")
        if connections[engine].vendor == "postgresql":
            shown = str(limits(engine)[0])
            assert int(shown.removesuffix("ms")) > 10_000 if shown.endswith("ms") else int(shown[:-1]) > 10
        with pytest.raises(TransactionTimeout), db.transaction(using=engine, timeout_s=0.2):
            add(users, "lost")
            sleep(engine, 20)
        add(users, "outer")
    assert names(users) == {"ann", "inner", "outer"}
    assert limits(engine) == before


def test_timeout__waiting_for_a_lock__cut_and_not_run_again(users, engine):
    is_held, is_over, runs = threading.Event(), threading.Event(), []

    def hold() -> None:
        with db.transaction(using=engine):
            users.where(username="ann").update(email="held@x")
            is_held.set()
            is_over.wait(120)
        connections[engine].close()

    holder = threading.Thread(target=hold)
    holder.start()
    assert is_held.wait(60)

    @db.transaction(using=engine, timeout_s=0.4, retry=5)
    def change() -> None:
        runs.append(1)
        users.where(username="ann").update(email="mine@x")

    began = time.monotonic()
    try:
        with pytest.raises(TransactionTimeout):
            change()
        assert time.monotonic() - began < 30
        assert len(runs) <= 1
    finally:
        is_over.set()
        holder.join(60)
    assert users.get(username="ann").email == "held@x"


async def test_timeout__async__cuts_what_waits_outside_the_database_too(users, engine):
    before = await sync_to_async(limits)(engine)
    began = time.monotonic()
    with pytest.raises(TransactionTimeout):
        async with db.transaction(using=engine, timeout_s=0.3):
            await users.bulk_insert([{"username": "lost", "email": "lost@x"}])
            await asyncio.sleep(30)
    with pytest.raises(TransactionTimeout):
        async with db.transaction(using=engine, timeout_s=0.3):
            await sync_to_async(sleep)(engine, 20)
    assert time.monotonic() - began < 19
    async with db.transaction(using=engine, timeout_s=120):
        await users.bulk_insert([{"username": "kept", "email": "kept@x"}])
    assert set(await users.values("username", flat=True)) == {"ann", "kept"}
    assert await sync_to_async(limits)(engine) == before
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def test_timeout__async_cancelled_from_outside__stays_a_cancellation(users, engine):
    is_in = asyncio.Event()

    async def work() -> None:
        async with db.transaction(using=engine, timeout_s=120):
            await users.bulk_insert([{"username": "lost", "email": "lost@x"}])
            is_in.set()
            await asyncio.sleep(300)

    task = asyncio.ensure_future(work())
    await is_in.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await users.count() == 1


def test_timeout__retries__share_the_time(users, engine):
    runs = []

    @db.transaction(using=engine, retry=9, timeout_s=0.25)
    def fail() -> None:
        runs.append(1)
        raise deadlock()

    for _ in range(10):  # a busy machine may leave no time for a second run
        runs.clear()
        with pytest.raises(TransactionTimeout) as caught:
            fail()
        if len(runs) > 1:
            break
    assert 1 < len(runs) < 9
    assert not is_transient(caught.value)


def test_check__no_time__refused():
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="above 0"):
            check(None, wrong)


def test_block__one_object_in_several_threads__each_has_its_own(users, engine):
    shared, errors = db.transaction(using=engine, timeout_s=120), []

    def work(number: int) -> None:
        try:
            with shared:
                add(users, f"u{number}")
                with shared:
                    add(users, f"v{number}")
        except DatabaseError as error:
            errors.append(error)
        finally:
            connections[engine].close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert (errors, users.count()) == ([], 7)


# --- run_in_transaction ---
def deadlock() -> OperationalError:
    error = OperationalError("deadlock detected")
    error.__cause__ = type("DeadlockDetected", (Exception,), {"sqlstate": "40P01"})()
    return error


def test_run_in_transaction__sync__retries_and_gives_the_result(users, engine):
    runs = []

    def work(name: str, *, end: str) -> str:
        runs.append(1)
        add(users, f"{name}{len(runs)}")
        if len(runs) < 3:
            raise deadlock()
        return name + end

    assert db.run_in_transaction(work, "u", end="!", using=engine, retry=3) == "u!"
    assert names(users) == {"ann", "u3"}


async def test_run_in_transaction__within_a_loop__plain_and_coroutine_functions(users, engine):
    def plain() -> int:
        add(users, "plain")
        return users.count()

    async def awaited() -> int:
        await users.bulk_insert([{"username": "awaited", "email": "awaited@x"}])
        return await users.count()

    assert await db.run_in_transaction(plain, using=engine) == 2
    assert await db.run_in_transaction(awaited, using=engine, isolation="serializable", timeout_s=120) == 3


def test_retry__as_a_block__says_what_to_use():
    with (
        pytest.raises(TypeError, match=r"@db.transaction\(retry=…\).*db.run_in_transaction"),
        db.transaction(retry=1),
    ):
        pass


async def test_block__sync_with_within_a_loop__says_async_with(engine):
    with pytest.raises(RuntimeError, match="async with"):
        db.transaction(using=engine).__enter__()


# --- on_commit ---
def test_on_commit__sync__after_the_commit_only_and_coroutine_functions_too(users, engine):
    said = []

    async def say() -> None:
        said.append("async")

    with db.transaction(using=engine):
        db.on_commit(lambda: said.append("sync"), engine)
        db.on_commit(say, engine)
        with pytest.raises(LookupError), db.transaction(using=engine):
            db.on_commit(lambda: said.append("never"), engine)
            raise LookupError
        assert said == []
    assert said == ["sync", "async"]


async def test_on_commit__async__after_the_outermost_commit_in_order(users, engine):
    said = []

    async def say(word: str) -> None:
        said.append((word, await users.count()))

    async with db.transaction(using=engine):
        await users.bulk_insert([{"username": "new", "email": "new@x"}])
        await db.on_commit(lambda: said.append("sync"), engine)
        async with db.transaction(using=engine):
            await db.on_commit(lambda: said.append("inner"), engine)
            await db.on_commit(_coroutine(say, "async"), engine)
        with pytest.raises(LookupError):
            async with db.transaction(using=engine):
                await db.on_commit(lambda: said.append("never"), engine)
                raise LookupError
        assert said == []
    assert said == ["sync", "inner", ("async", 2)]
    with pytest.raises(LookupError):
        async with db.transaction(using=engine):
            await db.on_commit(lambda: said.append("never"), engine)
            raise LookupError
    await db.on_commit(lambda: said.append("at once"), engine)
    assert said[-1] == "at once"
    assert "never" not in said


async def test_on_commit__async_hook_fails__robust_ones_do_not_stop_the_rest(users, engine):
    said = []

    async def fail() -> None:
        raise LookupError("hook")

    async with db.transaction(using=engine):
        await db.on_commit(fail, engine, robust=True)
        await db.on_commit(lambda: said.append(1), engine)
    assert said == [1]
    with pytest.raises(LookupError, match="hook"):
        async with db.transaction(using=engine):
            await users.bulk_insert([{"username": "kept", "email": "kept@x"}])
            await db.on_commit(fail, engine)
    assert await users.count() == 2


def _coroutine(function, *args):
    async def run() -> None:
        await function(*args)

    return run


def test_retry__a_real_deadlock__both_transactions_happen(users, engine):
    if connections[engine].vendor == "sqlite":
        pytest.skip("one writer at a time: no deadlock")
    add(users, "bob")
    barrier, runs = threading.Barrier(2, timeout=60), []

    @db.transaction(using=engine, retry=5)
    def touch(first: str, second: str) -> None:
        runs.append(1)
        users.where(username=first).update(email=f"{first}{second}@x")
        if len(runs) <= 2:
            barrier.wait()
        users.where(username=second).update(is_active=False)

    def work(*given: str) -> None:
        try:
            touch(*given)
        finally:
            connections[engine].close()

    threads = [threading.Thread(target=work, args=pair) for pair in (("ann", "bob"), ("bob", "ann"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(runs) >= 3  # the one that was rolled back may be first at its row again
    assert set(users.values("email", flat=True)) == {"annbob@x", "bobann@x"}
