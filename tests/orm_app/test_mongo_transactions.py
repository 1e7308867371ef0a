"""db.transaction on a server that speaks MongoDB's protocol: all or nothing, isolated, joined, run again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, IntegrityError, NotSupportedError, connections
from django.db.transaction import TransactionManagementError

from orm_app import db, mongo

from .documents_app import databases

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def module_alias(request, django_db_blocker) -> Iterator[str]:
    databases.require_driver()
    url = request.getfixturevalue("mongodb_url")
    with django_db_blocker.unblock(), databases.documents_database(url) as name:
        yield name


@pytest.fixture
def alias(module_alias: str) -> str:
    databases.empty(module_alias)
    return module_alias


def insert(name: str) -> None:
    from .documents_app.models import Author

    Author.objects.create(name=name)


def names() -> set[str]:
    from .documents_app.models import Author

    return set(Author.objects.values_list("name", flat=True))


def seen_by_another() -> set[str]:
    """In a thread of its own, so over a session of its own."""
    found: list[set[str]] = []
    thread = threading.Thread(target=lambda: found.append(names()))
    thread.start()
    thread.join()
    return found[0]


def test_block__commit_and_exception__all_or_nothing(alias: str) -> None:
    with db.transaction(using=alias):
        insert("kept")
        assert (names(), seen_by_another()) == ({"kept"}, set())
    with pytest.raises(LookupError), db.transaction(using=alias):
        insert("lost")
        raise LookupError
    assert names() == seen_by_another() == {"kept"}
    assert connections[alias].session is None  # type: ignore[attr-defined]


def test_block__inside_another__joins_it(alias: str) -> None:
    with db.transaction(using=alias):
        insert("outer")
        with db.transaction(using=alias):
            insert("inner")
        assert seen_by_another() == set()
    assert names() == {"outer", "inner"}


def test_block__inner_failed_and_its_error_is_caught__nothing_is_committed_and_the_end_says_so(
    alias: str,
) -> None:
    with pytest.raises(TransactionManagementError, match="no savepoints"), db.transaction(using=alias):
        insert("outer")
        try:
            with db.transaction(using=alias):
                insert("inner")
                raise LookupError
        except LookupError:
            insert("later")
    assert names() == set()


def test_block__a_write_failed_and_its_error_is_caught__the_same(alias: str) -> None:
    insert("known")
    with pytest.raises(TransactionManagementError), db.transaction(using=alias):
        insert("new")
        with pytest.raises(IntegrityError):
            insert("known")
    assert names() == {"known"}
    with db.transaction(using=alias):
        insert("next")  # the connection is as before
    assert names() == {"known", "next"}


def test_durable__inside_another__refused(alias: str) -> None:
    with (
        db.transaction(using=alias),
        pytest.raises(RuntimeError, match="durable"),
        db.transaction(using=alias, durable=True),
    ):
        pass


def test_on_commit__after_the_commit_only(alias: str) -> None:
    ran: list[str] = []
    with db.transaction(using=alias):
        with db.transaction(using=alias):
            db.on_commit(lambda: ran.append("yes"), using=alias)
        assert ran == []
    with pytest.raises(LookupError), db.transaction(using=alias):
        db.on_commit(lambda: ran.append("no"), using=alias)
        raise LookupError
    assert ran == ["yes"]


def test_bulk_insert_and_upsert__inside_a_block__go_with_it(alias: str) -> None:
    from .documents_app.models import Author

    with pytest.raises(LookupError), db.transaction(using=alias):
        db.query(Author).bulk_insert([{"name": "a"}, {"name": "b"}])
        db.query(Author).upsert([{"name": "a"}, {"name": "c"}], unique="name")
        assert names() == {"a", "b", "c"}
        raise LookupError
    assert names() == set()


def test_retry__two_change_one_document__the_later_one_runs_again(alias: str) -> None:
    from .documents_app.models import Note

    note = Note.objects.create(title="sum", place=0)
    runs: list[int] = []

    def other() -> None:
        Note.objects.filter(pk=note.pk).update(place=100)

    @db.transaction(using=alias, retry=3)
    def add() -> None:
        runs.append(1)
        place = Note.objects.get(pk=note.pk).place
        if len(runs) == 1:  # behind the back of this transaction, which has read already
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        Note.objects.filter(pk=note.pk).update(place=place + 1)

    add()
    note.refresh_from_db()
    assert (len(runs), note.place) == (2, 101)


def test_transfers__four_at_once_over_the_same_documents__nothing_is_lost(alias: str) -> None:
    from .documents_app.models import Note

    keys = [Note.objects.create(title=str(n), place=100).pk for n in range(3)]
    failed: list[BaseException] = []

    @db.transaction(using=alias, retry=100)
    def move(source: Any, target: Any) -> None:
        for key, change in ((source, -1), (target, 1)):
            place = Note.objects.get(pk=key).place
            Note.objects.filter(pk=key).update(place=place + change)

    def work(first: int) -> None:
        try:
            for n in range(6):
                move(keys[(first + n) % 3], keys[(first + n + 1) % 3])
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    # Each thread goes round twice, so every document is where it began; a lost update would show.
    assert list(Note.objects.order_by("title").values_list("place", flat=True)) == [100, 100, 100]


def test_async_block__another_tasks_rollback__takes_nothing_of_ours(alias: str) -> None:
    ainsert = sync_to_async(insert)
    inside, over = asyncio.Event(), asyncio.Event()

    async def keeps() -> None:
        async with db.transaction(using=alias):
            await ainsert("kept")
            inside.set()
            await over.wait()

    async def loses() -> None:
        await inside.wait()
        try:
            async with db.transaction(using=alias):
                await ainsert("lost")
                async with db.transaction(using=alias):
                    await ainsert("lost too")
                raise LookupError
        except LookupError:
            over.set()

    async def both() -> set[str]:
        await asyncio.gather(keeps(), loses())
        return await sync_to_async(names)()

    assert asyncio.run(both()) == {"kept"}


def test_async_block__cancelled__rolled_back(alias: str) -> None:
    async def story() -> set[str]:
        began = asyncio.Event()

        async def work() -> None:
            async with db.transaction(using=alias):
                await sync_to_async(insert)("lost")
                began.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await sync_to_async(names)()

    assert asyncio.run(story()) == set()


@pytest.mark.parametrize(
    "bound", [{"isolation": "serializable"}, {"timeout_s": 5}], ids=["isolation", "timeout_s"]
)
def test_isolation_and_timeout__refused_with_the_way_out(alias: str, bound: Any) -> None:
    with pytest.raises(NotSupportedError, match="timeoutMS"), db.transaction(using=alias, **bound):
        pass
    with db.transaction(using=alias):
        insert("works afterwards")
    assert names() == {"works afterwards"}


def test_block__server_without_transactions__says_what_is_missing(alias: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(connections[alias].features, "_supports_transactions", False)
    with pytest.raises(NotSupportedError, match="replica set"), db.transaction(using=alias):
        pass
    from .documents_app.models import Author

    assert db.query(Author).bulk_insert([{"name": "one"}, {"name": "two"}]) == 2  # one after the other


def test_block__session_is_dead_at_the_commit__an_error_and_a_working_connection(alias: str) -> None:
    with pytest.raises(DatabaseError), db.transaction(using=alias):
        insert("lost")
        session = connections[alias].session  # type: ignore[attr-defined]
        connections[alias].database.command("killSessions", [session.session_id])  # type: ignore[attr-defined]
    assert names() == set()
    with db.transaction(using=alias):
        insert("works")
    assert names() == {"works"}


def test_django_error__of_the_driver__its_kind_and_no_topology(alias: str) -> None:
    from pymongo.errors import DuplicateKeyError, ServerSelectionTimeoutError

    away = ServerSelectionTimeoutError(
        "h:1: refused (configured timeouts: x), Timeout: 3s, Topology Description: <…>"
    )
    assert str(mongo.django_error(away)) == "h:1: refused"
    assert isinstance(mongo.django_error(DuplicateKeyError("twice", 11000, {})), IntegrityError)
