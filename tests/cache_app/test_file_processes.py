"""Real processes on one directory: at once, killed, stopped and forked."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cache_app.file import FileStore

from .file_stores import BIG, check, contents, files, rows
from .loaders import until

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
forked = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may stop a process in the middle of its transaction, for as long as others wait for it usually."""
    for module in ("file_connections", "file_index", "file_recovery"):
        monkeypatch.setattr(f"cache_app.{module}.BUSY_S", 60.0)


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(location: Path) -> Iterator[FileStore]:
    made = FileStore(str(location))
    yield made
    made.close()


def at_once(
    count: int, work: Callable[[int], Any], *, meanwhile: Callable[[], Any] = lambda: None
) -> list[Any]:
    """What `work(number)` returned in each of so many processes."""
    running = []
    for number in range(count):
        receiver, sender = forked.Pipe(duplex=False)
        process = forked.Process(
            target=lambda sender, number: sender.send(work(number)), args=(sender, number)
        )
        process.start()
        sender.close()
        running.append((process, receiver))
    meanwhile()
    results = [receiver.recv() if receiver.poll(120) else None for _, receiver in running]
    for process, receiver in running:
        process.join(60)
        receiver.close()
    return results


def test_processes__count_at_once__no_increment_is_lost(location: Path, store: FileStore) -> None:
    store.set("n", b"0", 300)

    def count(number: int) -> list[int]:
        own = FileStore(str(location))
        return [own.incr("n", 1) or 0 for _ in range(60)]

    numbers = [number for found in at_once(4, count) for number in found]
    assert sorted(numbers) == list(range(1, 241))
    assert store.get("n") == b"240"
    assert 200 < (store.ttl_s("n") or 0) <= 300


def test_processes__add_at_once__one_of_them_wins(location: Path, store: FileStore) -> None:
    def add(number: int) -> list[bool]:
        own = FileStore(str(location))
        payloads = [b"%d" % number, b"%d" % number * BIG]
        return [own.set(f"k{key}", payloads[key % 2], None, only="new") for key in range(30)]

    won = at_once(4, add)
    assert [sum(process[key] for process in won) for key in range(30)] == [1] * 30
    for key in range(30):
        winner = [process[key] for process in won].index(True)
        assert (store.get(f"k{key}") or b"")[:1] == b"%d" % winner
    assert len(files(location)) == 15
    check(location)


def test_processes__versions_at_once__every_raise_is_seen(location: Path, store: FileStore) -> None:
    def raise_them(number: int) -> list[int]:
        own = FileStore(str(location))
        found = []
        for _ in range(25):
            own.raise_versions(["t"])
            found.append(own.versions(["t"])[0])
        return found

    found = at_once(3, raise_them)
    assert all(one == sorted(set(one)) for one in found)
    assert store.versions(["t"])[0] == max(number for one in found for number in one)


def test_processes__write_more_than_fits__limit_holds_and_totals_are_right(
    location: Path, store: FileStore
) -> None:
    limits = {"max_bytes": 1_000_000, "max_entries": 200}

    def write(number: int) -> int:
        own, chosen, most = FileStore(str(location), **limits), random.Random(number), 0
        for step in range(120):
            key = f"k{chosen.randrange(400)}"
            own.set(key, os.urandom(BIG if step % 4 == 0 else chosen.randrange(3000)), 300)
            own.get(f"k{chosen.randrange(400)}")
            if step % 10 == 0:
                own.delete_many([f"k{chosen.randrange(400)}"])
            used = own.usage()
            assert used.entries <= 200
            most = max(most, used.size_bytes)
        return most

    assert all(0 < most <= 1_000_000 for most in at_once(3, write))
    check(location)
    assert sum(path.stat().st_size for path in location.rglob("*.value")) <= 1_000_000


def test_processes__find_the_index_corrupt_at_once__it_is_rebuilt_once(
    location: Path, store: FileStore
) -> None:
    store.set_many([("big", b"x" * BIG, None)])
    store.close()
    (index,) = (location / "v1").glob("index-*.sqlite3")
    index.write_bytes(os.urandom(8192))

    def use(number: int) -> bool:
        own = FileStore(str(location))
        own.set(f"k{number}", b"%d" % number, None)
        return own.get("big") == b"x" * BIG and own.get(f"k{number}") == b"%d" % number

    assert at_once(4, use) == [True] * 4
    assert sorted(contents(store)) == ["big", "k0", "k1", "k2", "k3"]
    assert len(list((location / "v1").glob("index-*.sqlite3"))) == 1
    check(location)


WRITER = """
import os, sys
from cache_app.file import FileStore
store = FileStore(sys.argv[1], max_bytes=2_000_000)
print("started", flush=True)
number = 0
while True:
    number += 1
    fill = b"%d" % (number % 10)
    store.set(f"k{number % 80}", fill * (40_000 if number % 3 else 500), None)
    store.incr("n", 1) or store.set("n", b"0", None)
    if number % 7 == 0:
        store.delete_many([f"k{(number * 3) % 80}"])
"""


def test_process__killed_while_it_writes__everything_is_whole_or_missing(
    location: Path, store: FileStore
) -> None:
    store.set("n", b"0", None)
    counted = 0
    for round_ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(location)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        until(lambda counted=counted: int(store.get("n") or b"0") > counted)  # type: ignore[misc]
        time.sleep(0.03 + round_ * 0.037)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        found = contents(store)
        assert int(found.pop("n")) > counted
        counted = int(store.get("n") or b"0")
        assert all(payload == payload[:1] * len(payload) for payload in found.values())
        assert {len(payload) for payload in found.values()} <= {500, 40_000}
        check(location)
        assert store.usage().size_bytes <= 2_000_000
    later = FileStore(str(location), wall=lambda: time.time() + 700)
    later.set("n", b"0", None)
    later.set("n", b"0", None)
    assert rows(location, "SELECT * FROM spare") == []
    check(location)
    assert contents(store)
    later.close()


def test_process__stopped_in_a_transaction__others_read_and_write_again_when_it_is_gone(
    location: Path, store: FileStore
) -> None:
    store.set("k", b"1", None)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sqlite3, sys, time\n"
            "other = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "other.execute('BEGIN IMMEDIATE')\nother.execute('DELETE FROM entries')\n"
            "print('held', flush=True)\ntime.sleep(60)",
            str((location / "v1" / "index").resolve()),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    assert store.get("k") == b"1"
    done = []
    writing = threading.Thread(target=lambda: done.append(store.set("k", b"2", None)))
    writing.start()
    time.sleep(0.1)
    assert (done, store.get("k")) == ([], b"1")
    holder.kill()
    holder.wait()
    holder.stdout.close()
    writing.join(60)
    assert (done, store.get("k")) == ([True], b"2")
    check(location)


def test_fork__after_use__parent_and_child_go_on(location: Path, store: FileStore) -> None:
    store.set_many([("n", b"0", None), ("big", b"x" * BIG, None)])
    store.get("n")

    def use(number: int) -> tuple[int, int | None]:
        own = sum(1 for _ in range(40) if store.incr("n", 1))
        return own, len(store.get("big") or b"")  # type: ignore[arg-type]

    assert at_once(2, use, meanwhile=lambda: use(2)) == [(40, BIG)] * 2
    assert store.get("n") == b"120"
    check(location)


def test_fork__while_threads_write__neither_side_hangs(location: Path, store: FileStore) -> None:
    store.set("n", b"0", None)
    stop = threading.Event()
    counts = [0, 0]

    def write(number: int) -> None:
        while not stop.is_set():
            store.incr("n", 1)
            counts[number] += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    ended = []
    for _ in range(5):
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if store.incr("n", 1) and store.get("n") else 1)
            except BaseException:
                os._exit(2)
        ended.append(os.waitpid(child, 0)[1])
    stop.set()
    for thread in threads:
        thread.join(60)
    assert ended == [0] * 5
    assert store.get("n") == b"%d" % (sum(counts) + 5)
    check(location)


async def test_fork__after_async_use__child_has_threads_of_its_own(location: Path, store: FileStore) -> None:
    await store.aset("n", b"0", None)
    child = os.fork()
    if child == 0:
        import asyncio

        try:
            asyncio._set_running_loop(None)
            os._exit(0 if asyncio.new_event_loop().run_until_complete(store.aincr("n", 1)) == 1 else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert await store.aget("n") == b"1"
