from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import os
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cache_app import LockTimeout, file_pages
from cache_app.file_locks import FileTurns, Room
from cache_app.file_pages import Page, step
from cache_app.lock_rules import Turns
from cache_app.lock_waits import process_name
from cache_app.locks import CacheLock

from .lock_kinds import until


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(str(tmp_path / "cache"))


def lock_in(room: Room, name: str = "name", **options: Any) -> CacheLock:
    return CacheLock(name, FileTurns(room, name), **options)


def test_room__made__is_nobodys_but_ours_and_bounded(room: Room, tmp_path: Path) -> None:
    for number in range(200):
        with lock_in(room, str(number)):
            pass
    folder = tmp_path / "cache" / "locks"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(list(folder.iterdir())) <= 64 + 1
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in folder.iterdir())
    assert sum(path.stat().st_blocks * 512 for path in folder.glob("*.page")) <= 64 * 2 * 4096


def test_fence__another_process_later_and_a_clock_that_stepped_back__rises(tmp_path: Path) -> None:
    wall = iter([5000, 1, 1, 9000])
    fences = []
    for _ in range(4):
        with lock_in(Room(str(tmp_path), wall=lambda: next(wall))) as lock:
            fences.append(lock.fence)
    assert fences == [5000, 5001, 5002, 9000]


def test_step__killed_in_the_middle__the_page_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "page")
    big = "x" * 10_000  # of several blocks
    written = os.pwrite

    for number, length in enumerate((1, 4, 12, 13, 16, 19, 20, 21, 26), start=1):
        torn = functools.partial(_torn, written, length)
        with step(path, lambda: 0.0) as page:
            assert page.fence == number - 1
            page.fence, page.names = number, {"name": Turns(f"{big}:{number}", 1.0)}
        monkeypatch.setattr(os, "pwrite", torn)
        with pytest.raises(OSError, match="only a part"), step(path, lambda: 0.0) as page:
            page.fence, page.names = 99, {}
        monkeypatch.setattr(os, "pwrite", written)
        with step(path, lambda: 0.0) as page:
            assert page == Page(number, {"name": Turns(f"{big}:{number}", 1.0)})


def _torn(written: Any, length: int, opened: int, half: bytes, offset: int) -> Any:
    return written(opened, half[:length], offset)


def test_step__nothing_changes__nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "page")
    with step(path, lambda: 0.0) as page:
        page.fence = 5
    monkeypatch.setattr(os, "pwrite", None)
    with step(path, lambda: 0.0) as page:
        page.names["idle"] = Turns()
    with pytest.raises(TypeError), step(path, lambda: 0.0) as page:
        page.fence = 6


def test_step__too_many_wait__is_said(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too many wait"), step(str(tmp_path / "page"), lambda: 0.0) as page:
        page.names["name"] = Turns(queue={f"p:{number}": float(number) for number in range(100_000)})


def test_page__both_halves_torn__counts_as_empty_and_the_fence_goes_on_from_the_clock(
    room: Room, tmp_path: Path
) -> None:
    lock = lock_in(room).acquire()
    for path in (tmp_path / "cache" / "locks").glob("*.page"):
        path.write_bytes(b"BLK1" + bytes(60))
    with lock_in(room, wait_s=0) as new:
        assert new.fence > lock.fence
    assert lock.release() is False


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b"null", b'[1,{"a":[1,2]}]', b'[1,{"a":5}]', b"\xff"])
def test_page__anything_else__is_an_empty_page(text: bytes) -> None:
    decoded = Page.decoded(text)
    assert (decoded.names.get("b"), decoded.encoded(0.0)[-2:]) == (None, b"}]")


def test_page__written_and_read__is_the_same() -> None:
    turns = Turns("p:1", 12.5, 7, {"q:1": 3.25, "q:2": 4.125}, "q:1", 11.0)
    again = Page.decoded(Page(9, {"name": turns, "idle": Turns(), "over": Turns("p:2", 1.0)}).encoded(2.0))
    assert (again.fence, again.names) == (9, {"name": turns})


def test_folder__removed_while_in_use__is_made_again(room: Room, tmp_path: Path) -> None:
    with lock_in(room):
        pass
    shutil.rmtree(tmp_path / "cache")
    granted = threading.Event()

    def wait() -> None:
        with lock_in(room):
            granted.set()

    with lock_in(room) as lock:
        assert room.mailbox.is_alive(f"{process_name()}:1")
        assert list((tmp_path / "cache" / "locks").glob("*.turn"))
        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: len(lock._turns.waiters))
    assert granted.wait(60)
    thread.join()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder__not_writable__is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="ermission"):
        lock_in(Room(str(tmp_path / "cache")), wait_s=0).acquire()


def test_mailbox__of_a_dead_process__is_swept_by_the_next_one(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "locks"
    folder.mkdir(parents=True, mode=0o700)
    (tmp_path / "cache").chmod(0o700)
    os.mkfifo(folder / "dead.turn")
    room = Room(str(tmp_path / "cache"))
    with lock_in(room):
        assert [path.name for path in folder.glob("*.turn")] == [f"{process_name()}.turn"]
    assert room.mailbox.is_alive("dead:1") is False
    room.mailbox.remove()
    assert not list(folder.glob("*.turn"))


def test_holder__of_a_process_that_is_gone__frees_at_once(room: Room, tmp_path: Path) -> None:
    lock = lock_in(room, ttl_s=3600)
    with room._page(lock._turns._name) as page:
        page.names[lock._turns._name] = Turns("dead:1", time.monotonic() + 3600)
    assert lock.locked() is False
    assert lock.try_acquire() is True


def test_mailbox__full__the_waiter_is_taken_for_alive(room: Room, tmp_path: Path) -> None:
    with lock_in(room):
        pass
    other = tmp_path / "cache" / "locks" / "other.turn"
    os.mkfifo(other)
    end = os.open(other, os.O_RDWR | os.O_NONBLOCK)
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(end, b"x" * 4096)
        assert room.mailbox.tell("other:1") is True
    finally:
        os.close(end)


def test_mailbox__nobody_waits__its_thread_ends_and_begins_again(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache_app.file_mailbox._IDLE_MS", 20)

    def wait() -> None:
        with lock_in(room):
            pass

    for _ in range(2):
        with lock_in(room) as lock:
            thread = threading.Thread(target=wait)
            thread.start()
            until(lambda waiters=lock._turns.waiters: len(waiters))
            time.sleep(0.05)
            assert room.mailbox._thread is not None
        thread.join()
        until(lambda: room.mailbox._thread is None)


@pytest.fixture
def step_stands_still(room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if a process were stopped in the middle of a step: it holds every page."""
    monkeypatch.setattr(file_pages, "_STEP_S", 0.1)
    with lock_in(room), contextlib.ExitStack() as stack:
        for number in range(64):
            path = tmp_path / "cache" / "locks" / f"{number:02x}.page"
            opened = stack.enter_context(open(path, "ab"))
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield


async def test_step__that_stands_still__blocks_neither_for_ever_nor_the_loop(
    step_stands_still: None, room: Room
) -> None:
    turns_of_the_loop: list[int] = []

    async def count() -> None:
        turns_of_the_loop.append(0)
        while True:
            turns_of_the_loop[-1] += 1
            await asyncio.sleep(0.005)

    for _ in range(20):  # a busy machine may stop this process for as long as the step may take
        counting = asyncio.ensure_future(count())
        with pytest.raises(OSError) as raised:
            await lock_in(room, "b", wait_s=0).aacquire()
        assert raised.value.errno == errno.ETIMEDOUT
        assert not isinstance(raised.value, LockTimeout)
        counting.cancel()
        if turns_of_the_loop[-1] >= 5:
            break
    assert turns_of_the_loop[-1] >= 5
