from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cache_app import file_connections, file_recovery
from cache_app.file import FileStore
from cache_app.file_connections import Connections
from cache_app.file_directory import Directory
from cache_app.store import StoreFailed

from .file_stores import BIG, START, Clock, Make, check, files, making, rows, the_file

_listed: list[str] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _listed is not None and event in ("os.listdir", "os.scandir"):
        _listed.append(str(arguments[0]))


sys.addaudithook(_note)


@pytest.fixture
def listed() -> Iterator[list[str]]:
    """The directories that are listed from now on."""
    global _listed
    _listed = []
    yield _listed
    _listed = None


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(location: Path, clock: Clock) -> Iterator[Make]:
    with making(location, clock) as make:
        yield make


@pytest.fixture
def store(make: Make) -> FileStore:
    return make()


def index(location: Path) -> Path:
    return Path(Directory(str(location)).index())


# --- nothing is listed -----------------------------------------------------------------------------------------------
def test_directory__everything_that_a_cache_does__never_lists_it(
    make: Make, clock: Clock, location: Path, listed: list[str]
) -> None:
    make().set("first", b"x", None)  # makes the index
    assert [path for path in listed if str(location) in path]
    del listed[:]
    store = make(max_bytes=400_000, max_entries=50)
    for number in range(120):
        clock.now += 10
        store.set(f"k{number}", os.urandom(BIG if number % 3 == 0 else 100), 300)
        store.get(f"k{number - 5}")
    store.get_many(["k1", "k115"])
    store.set_many([("a", b"1", None), ("b", b"x" * BIG, None)])
    store.incr("a", 1)
    store.expire("b", 5)
    store.raise_versions(["t"])
    list(store.scan("*"))
    store.delete_matching("k11*")
    del listed[:]
    store.delete_many(["a"])
    clock.now += 1000
    store.set("last", b"x", None)
    assert listed == []
    check(location)


# --- who was used last -----------------------------------------------------------------------------------------------
def used_at(location: Path, key: str) -> float:
    ((at,),) = rows(location, "SELECT used_at FROM entries WHERE key = ?", key.encode())
    return float(at) - START


def test_uses__read__are_written_with_the_next_change(store: FileStore, clock: Clock, location: Path) -> None:
    store.set_many([("a", b"1", None), ("b", b"1", None)])
    clock.now += 0.5
    store.get("a")  # too soon after the last use to be noted
    clock.now += 1.5
    store.get("b")
    assert (used_at(location, "a"), used_at(location, "b")) == (0, 0)
    store.set("c", b"1", None)
    assert (used_at(location, "a"), used_at(location, "b")) == (0, 2)


def test_uses__many_or_old__are_written_by_reads_too(
    make: Make, clock: Clock, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make()
    store.set_many([(f"k{number}", b"1", None) for number in range(300)])
    clock.now += 2
    for number in range(300):
        store.get(f"k{number}")
    assert rows(location, "SELECT count(*) FROM entries WHERE used_at = ?", clock.now) == [(256,)]
    monkeypatch.setattr("cache_app.file_index._NOTES_S", 0.0)
    store.get("k299")
    assert rows(location, "SELECT count(*) FROM entries WHERE used_at = ?", clock.now) == [(300,)]


def test_uses__somebody_writes__the_read_does_not_wait(
    make: Make, clock: Clock, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache_app.file_index._NOTES_S", 0.0)
    for module in ("file_connections", "file_index"):
        monkeypatch.setattr(f"cache_app.{module}.BUSY_S", 120.0)
    store = make()
    store.set("k", b"1", None)
    clock.now += 2
    with closing(sqlite3.connect(index(location), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        assert store.get("k") == b"1"
        assert time.monotonic() - began < 60
    store.get("k")
    assert used_at(location, "k") == 2


# --- other writers ---------------------------------------------------------------------------------------------------
def test_change__another_process_holds_the_index__fails_after_a_while_and_reads_go_on(
    make: Make, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("file_connections", "file_index"):
        monkeypatch.setattr(f"cache_app.{module}.BUSY_S", 0.1)
    store = make()
    store.set("k", b"1", None)
    with closing(sqlite3.connect(index(location), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreFailed) as caught:
            store.set("k", b"2", None)
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
        assert store.get("k") == b"1"
    assert store.set("k", b"2", None) is True


def test_change__work_fails__nothing_of_it_stays(store: FileStore, location: Path) -> None:
    store.set("k", b"1", None)

    def work(change: Any) -> None:
        change.delete([entry.id for entry in [change.find(b"k")]])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store._index.change(work)
    assert store.get("k") == b"1"
    store.set("k", b"2", None)
    check(location)


# --- what a crash leaves ---------------------------------------------------------------------------------------------
def killed(*_: Any) -> None:
    raise SystemExit("killed here")


@pytest.mark.parametrize("moment", ["after the announcement", "half of the file", "before the row"])
def test_crash__while_a_big_value_is_written__leaves_what_is_swept(
    make: Make, clock: Clock, location: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    store = make()
    store.set("k", b"o" * BIG, None)
    with monkeypatch.context() as patched:
        patched.setattr(store._index, "withdraw", lambda files: None)  # a killed process withdraws nothing
        if moment == "after the announcement":
            patched.setattr(store, "_write_file", killed)
        elif moment == "half of the file":
            patched.setattr(os, "rename", killed)
            patched.setattr("cache_app.file_values.remove", lambda path: None)
        else:
            patched.setattr(store, "_put_all", killed)
        with pytest.raises(SystemExit):
            store.set("k", b"n" * BIG, None)
    check(location)
    assert store.get("k") == b"o" * BIG
    after = make()
    clock.now += 601
    after.set("other", b"x", None)
    after.set("other", b"x", None)
    assert len(files(location)) == 1
    assert rows(location, "SELECT * FROM spare") == []
    assert after.get("k") == b"o" * BIG
    check(location)


def test_crash__after_the_row__old_file_is_swept(
    make: Make, clock: Clock, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make()
    store.set("k", b"o" * BIG, None)
    monkeypatch.setattr(store._index, "_remove_files", lambda files: None)
    store.set("k", b"n" * BIG, None)
    assert len(files(location)) == 2
    check(location)
    after = make()
    clock.now += 601
    after.set("other", b"x", None)
    assert (len(files(location)), after.get("k")) == (1, b"n" * BIG)


def test_writer__stood_still_until_its_file_was_swept__writes_it_again(
    make: Make, clock: Clock, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = make(), make()
    write, stops = store._write_file, iter([True])

    def slow(file: str, entry: Any, payload: bytes) -> None:
        write(file, entry, payload)
        if next(stops, False):
            clock.now += 601
            other.set("other", b"x", None)
            assert files(location) == set()

    monkeypatch.setattr(store, "_write_file", slow)
    assert store.set("k", b"n" * BIG, None) is True
    assert store.get("k") == b"n" * BIG
    check(location)


def test_boot__another_one__files_that_no_row_knows_are_removed(
    make: Make, location: Path, listed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not file_recovery.boot():
        pytest.skip("this system does not tell one start from another")
    store = make()
    store.set_many([("k", b"x" * BIG, None), ("lost", b"y" * BIG, None)])
    rows(
        location, "DELETE FROM entries WHERE key = ?", b"lost"
    )  # what a power failure does to the last commits
    (location / "v1" / "ab").mkdir(exist_ok=True)
    (location / "v1" / "ab" / "ab12.value.tmp").write_bytes(b"half")
    monkeypatch.setattr(file_recovery, "boot", lambda: "another")
    del listed[:]
    after = make()
    after.set("n", b"1", None)
    assert len(files(location)) == 1
    assert after.get("k") == b"x" * BIG
    del listed[:]
    make().set("n", b"1", None)
    assert listed == []


# --- a lost or corrupt index -----------------------------------------------------------------------------------------
def _garbage(location: Path) -> None:
    path = index(location)
    path.write_bytes(os.urandom(path.stat().st_size))


def _halved(location: Path) -> None:
    path = index(location)
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


def _emptied(location: Path) -> None:
    os.truncate(index(location), 0)


def _of_another_schema(location: Path) -> None:
    rows(location, "PRAGMA user_version = 99")


def _removed(location: Path) -> None:
    index(location).unlink()


def _pointer_removed(location: Path) -> None:
    (location / "v1" / "index").unlink()


def _pointer_is_a_file(location: Path) -> None:
    pointer = location / "v1" / "index"
    data = pointer.read_bytes()
    pointer.unlink()
    pointer.write_bytes(data)


DAMAGES = [_garbage, _emptied, _of_another_schema, _removed, _pointer_removed, _pointer_is_a_file]


@pytest.mark.parametrize("damage", DAMAGES)
def test_index__is_lost__is_built_from_the_files(
    make: Make, clock: Clock, location: Path, damage: Any
) -> None:
    store = make()
    store.set_many([("big", b"x" * BIG, 100), ("other", b"y" * BIG, None), ("small", b"s", None)])
    store.set("gone", b"z" * BIG, 10)
    store.expire("other", 50)
    store.close()
    damage(location)
    clock.now += 11
    after = make()
    assert after.get("big") == b"x" * BIG
    assert (after.ttl_s("big"), after.ttl_s("other")) == (89, 39)
    assert (after.get("small"), after.get("gone")) == (None, None)
    assert sorted(after.scan("*")) == ["big", "other"]
    after.set("small", b"s", None)
    check(location)
    assert len(list((location / "v1").glob("index-*.sqlite3"))) == 1


def test_index__is_rebuilt__torn_and_double_files_go(make: Make, clock: Clock, location: Path) -> None:
    store = make()
    store.set("k", b"old" * BIG, None)
    old = the_file(location)
    copy = old.read_bytes()
    clock.now += 1
    store.set("k", b"new" * BIG, None)
    old.write_bytes(copy)  # was not removed yet
    for name in ("00torn.value", "00half.value.tmp"):
        (location / "v1" / "00").mkdir(exist_ok=True)
        (location / "v1" / "00" / name).write_bytes(copy[:100])
    store.close()
    index(location).unlink()
    after = make()
    assert after.get("k") == b"new" * BIG
    assert len(files(location)) == 1
    check(location)


def test_index__corrupt_while_it_is_open__every_call_goes_on(make: Make, location: Path) -> None:
    store = make()
    store.set_many([(f"k{number}", b"x" * 500, None) for number in range(500)])
    store.set("big", b"x" * BIG, None)
    rows(location, "PRAGMA wal_checkpoint(TRUNCATE)")
    size = index(location).stat().st_size
    with index(location).open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    for number in range(0, 500, 50):
        assert store.get(f"k{number}") in (None, b"x" * 500)
        assert store.set(f"k{number}", b"new", None) is True
        assert store.get(f"k{number}") == b"new"
    assert store.get("big") == b"x" * BIG
    check(location)


def test_index__half_of_it_is_gone__every_call_goes_on(make: Make, location: Path) -> None:
    store = make()
    store.set_many([(f"k{number}", b"x" * 500, None) for number in range(500)])
    store.close()
    _halved(location)
    after = make()
    for number in range(0, 500, 50):
        assert after.get(f"k{number}") in (None, b"x" * 500)
        assert after.set(f"k{number}", b"new", None) is True
    assert sorted(after.scan("k*"))
    after.set_many([(f"n{number}", b"x" * 500, None) for number in range(500)])
    assert after.get("n499") == b"x" * 500


def test_directory__is_removed_under_a_running_process__is_made_again(make: Make, location: Path) -> None:
    store, other = make(), make()
    store.set_many([("k", b"1", None), ("big", b"x" * BIG, None)])
    assert other.get("k") == b"1"
    shutil.rmtree(location)
    assert store.set("big", b"y" * BIG, None) is True
    time.sleep(0.03)
    assert (other.get("k"), other.get("big"), store.get("big")) == (None, b"y" * BIG, b"y" * BIG)
    shutil.rmtree(location)
    time.sleep(0.03)
    assert (other.get("big"), other.incr("k", 1), other.set("k", b"2", None)) == (None, None, True)
    assert location.stat().st_mode & 0o777 == 0o700
    check(location)


def test_index__another_takes_its_place_in_the_middle_of_a_change__is_changed_as_well(
    make: Make, location: Path
) -> None:
    store, other = make(), make()
    store.set_many([("n", b"1", None), ("big", b"x" * BIG, None)])
    times = []

    def work(change: Any) -> None:
        if not times:
            index(location).unlink()
            other.set("n", b"5", None)
        times.append(change.find(b"n").payload)

    store._index.change(work)
    assert times == [b"1", b"5"]
    check(location)


def test_index__old_connection_closes_last__new_log_stays(make: Make, location: Path) -> None:
    """SQLite removes the write-ahead log by name: the next index must have another one."""
    store, other = make(), make()
    store.set("k", b"1", None)
    old = sqlite3.connect(index(location), isolation_level=None)
    old.execute("SELECT * FROM entries").fetchall()
    index(location).unlink()
    other.set("k", b"2", None)
    log = Path(f"{index(location)}-wal")
    assert log.exists()
    store.close()
    old.close()
    assert log.exists()
    assert store.get("k") == b"2"


# --- connections -----------------------------------------------------------------------------------------------------
@pytest.fixture
def connections(make: Make, location: Path) -> Iterator[Connections]:
    make().set("k", b"1", None)
    made = Connections(Directory(str(location)), lambda unusable: None, limit=2)
    yield made
    made.close()


def test_connections__all_are_lent__next_waits_for_its_turn(connections: Connections) -> None:
    one, two = connections.take(), connections.take()
    with pytest.raises(TimeoutError):
        connections.take(0.0)
    got = []

    def wait(number: int) -> None:
        connection = connections.take(60)
        got.append(number)
        time.sleep(0.01)
        connections.give(connection)

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
        while len(connections._waiters) < threads.index(thread) + 1:
            time.sleep(0.001)
    connections.give(one)
    for thread in threads:
        thread.join(60)
    assert got == list(range(6))
    connections.give(two)
    assert connections.take(0.0) in (one, two)


def test_connections__closed__are_opened_again(connections: Connections) -> None:
    connection = connections.take()
    connections.give(connection)
    connections.close()
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("SELECT 1")
    again = connections.take()
    assert again is not connection
    connections.give(again)
    assert len(connections._slots) == 2


def test_connections__dropped_after_an_error__its_transaction_is_undone(
    connections: Connections, location: Path
) -> None:
    connection = connections.take()
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM entries")
    connections.drop(connection)
    assert rows(location, "SELECT count(*) FROM entries") == [(1,)]


def test_connections__process_forks__has_none_open(make: Make) -> None:
    store = make()
    store.set("k", b"1", None)
    store.get("k")
    pools = list(file_connections._ours)
    file_connections._before_fork()
    try:
        assert all(not pool._slots for pool in pools)
    finally:
        file_connections._after_fork()
    assert store.get("k") == b"1"
