"""Locks between processes that are killed, stopped and forked, on Redis and in files."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from cache_app.locks import LockLost, LockTimeout

from .lock_kinds import WAIT_S, Locks, hears, in_queue, queued, stop_polling, until

FORK = multiprocessing.get_context("fork")
IN_PROCESSES = ("redis", "file")


@pytest.fixture(params=IN_PROCESSES)
def locks(request: pytest.FixtureRequest, prefix: str, tmp_path: Path) -> Locks:
    return Locks(request.param, prefix, tmp_path / "cache")


class Other:
    """A process of its own. `tell` sends it a word, `heard` waits for one of its."""

    def __init__(self, work: Callable[[Connection], None]) -> None:
        self.line, theirs = FORK.Pipe()
        self.process = FORK.Process(target=self._run, args=(work, theirs), daemon=True)
        self.process.start()
        theirs.close()

    @staticmethod
    def _run(work: Callable[[Connection], None], line: Connection) -> None:
        work(line)
        os._exit(0)

    def tell(self, word: Any = None) -> None:
        self.line.send(word)

    def heard(self) -> Any:
        assert self.line.poll(WAIT_S), "nothing was heard of the other process"
        return self.line.recv()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> None:
        if self.process.is_alive():
            self.signal(signal.SIGKILL)
        self.process.join()
        self.line.close()


@pytest.fixture
def start() -> Iterator[Callable[[Callable[[Connection], None]], Other]]:
    others: list[Other] = []

    def begin(work: Callable[[Connection], None]) -> Other:
        others.append(Other(work))
        return others[-1]

    yield begin
    for other in others:
        other.end()


Start = Callable[[Callable[[Connection], None]], Other]


def holding(locks: Locks, **options: Any) -> Callable[[Connection], None]:
    """Takes the lock, says its fence, and at a word leaves the block and says what came of it."""

    def work(line: Connection) -> None:
        try:
            with locks.make(**options) as lock:
                line.send(lock.fence)
                line.recv()
            line.send("freed")
        except LockLost:
            line.send("lost")
        line.recv()

    return work


def test_holder__killed__the_waiter_gets_it_within_the_lease(locks: Locks, start: Start) -> None:
    # In files at once: the kernel says that its pipe is gone.
    other = start(holding(locks, ttl_s=0.5 if locks.kind == "redis" else 3600.0))
    fence = other.heard()
    killer = threading.Timer(0.1, other.signal, [signal.SIGKILL])
    killer.start()
    with locks.make(wait_s=WAIT_S) as lock:
        assert lock.fence > fence
    killer.join()


@pytest.mark.parametrize("renew", [False, True])
def test_holder__stopped_beyond_its_lease__has_lost_it_and_frees_nothing(
    locks: Locks, start: Start, renew: bool
) -> None:
    other = start(holding(locks, ttl_s=0.3, renew=renew))
    fence = other.heard()
    other.signal(signal.SIGSTOP)
    with locks.make(wait_s=WAIT_S) as lock:
        assert lock.fence > fence
        other.signal(signal.SIGCONT)
        time.sleep(0.15)  # its watchdog wakes up
        other.tell()
        assert other.heard() == "lost"
        assert lock.owned()


def test_waiter__killed_as_the_first_in_the_queue__is_passed_over_at_once(
    locks: Locks, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_polling(monkeypatch)  # only the holder that lets go can tell the second one
    holder = locks.make(fifo=True).acquire()
    first = start(holding(locks, fifo=True))
    until(lambda: in_queue(holder) == 1)
    granted: list[float] = []
    thread = threading.Thread(target=_note, args=(locks, granted), daemon=True)
    thread.start()
    until(lambda: queued(holder) and in_queue(holder) == 2 and hears(holder))
    time.sleep(0.1)
    first.signal(signal.SIGKILL)
    first.process.join()
    holder.release()
    thread.join(WAIT_S)
    assert granted


def test_waiter__stopped_as_the_first_in_the_queue__loses_its_turn_after_half_a_second(
    locks: Locks, start: Start
) -> None:
    holder = locks.make(fifo=True).acquire()
    first = start(holding(locks, fifo=True))
    until(lambda: in_queue(holder) == 1)
    granted: list[float] = []
    thread = threading.Thread(target=_note, args=(locks, granted), daemon=True)
    thread.start()
    until(lambda: queued(holder) and in_queue(holder) == 2 and hears(holder))
    time.sleep(0.1)
    first.signal(signal.SIGSTOP)
    released = time.monotonic()
    holder.release()
    thread.join(WAIT_S)
    assert granted[0] - released > 0.4
    first.signal(signal.SIGCONT)
    assert first.heard()  # it comes back, and is served


def _note(locks: Locks, granted: list[float]) -> None:
    with locks.make(fifo=True):
        granted.append(time.monotonic())


def _count(locks: Locks, counter: Path, times: int, fifo: bool) -> Callable[[Connection], None]:
    """From two threads and two tasks at a time."""

    def bump() -> None:
        counter.write_text(str(int(counter.read_text()) + 1))

    def by_thread() -> None:
        for _ in range(times):
            with locks.make(wait_s=120, fifo=fifo):
                bump()

    async def by_task() -> None:
        for _ in range(times):
            async with locks.make(wait_s=120, fifo=fifo):
                bump()

    async def by_tasks() -> None:
        await asyncio.gather(by_task(), by_task())

    def work(line: Connection) -> None:
        threads = [threading.Thread(target=by_thread) for _ in range(2)]
        for thread in threads:
            thread.start()
        asyncio.run(by_tasks())
        for thread in threads:
            thread.join()
        line.send("done")

    return work


@pytest.mark.parametrize("fifo", [False, True])
def test_counter__four_processes_of_threads_and_tasks__no_step_is_lost(
    locks: Locks, start: Start, tmp_path: Path, fifo: bool
) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    others = [start(_count(locks, counter, 8, fifo)) for _ in range(4)]
    for other in others:
        assert other.line.poll(120)
        assert other.heard() == "done"
    assert int(counter.read_text()) == 4 * 4 * 8


@pytest.mark.parametrize("kind", ["redis", "local", "file"])
def test_fork__child__holds_nothing_renews_nothing_and_has_locks_of_its_own(
    kind: str, prefix: str, tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_polling(monkeypatch)
    locks = Locks(kind, prefix, tmp_path / "cache")
    lock = locks.make(ttl_s=6.0, renew=True).acquire()
    with pytest.raises(LockTimeout):  # what rings the waiters runs
        locks.make(wait_s=0.1).acquire()
    assert asyncio.run(locks.make("task's too").atry_acquire()) is True

    def child(line: Connection) -> None:
        try:
            lock.release()
        except RuntimeError as error:
            line.send((str(error), lock.owned(), lock.try_acquire()))
        line.send(asyncio.run(locks.make("task's").atry_acquire()))
        with locks.make("another", ttl_s=1.5, renew=True) as own, locks.make("wanted"):
            threading.Thread(target=_late, args=(locks, line)).start()
            time.sleep(1.6)
            line.send((own.is_lost, own.owned()))
        line.recv()

    other = start(child)
    assert other.heard() == (f"lock {lock.name!r} is not held by this object", False, kind == "local")
    assert other.heard() is True
    assert other.heard() == (False, True)
    assert other.heard() == "granted"
    assert lock.owned()
    assert lock.release() is True


def _late(locks: Locks, line: Connection) -> None:
    with locks.make("wanted"):
        line.send("granted")


def test_fork__of_a_holder__the_childs_life_does_not_keep_the_lock(
    prefix: str, tmp_path: Path, start: Start
) -> None:
    """The pipe that says that a process lives is not the child's."""
    locks = Locks("file", prefix, tmp_path / "cache")

    def parent(line: Connection) -> None:
        locks.make(ttl_s=60).acquire()
        pid = os.fork()
        if pid == 0:
            time.sleep(10 * WAIT_S)
            os._exit(0)
        line.send(pid)
        line.recv()

    other = start(parent)
    child = other.heard()
    other.signal(signal.SIGKILL)
    other.process.join()
    try:
        assert locks.make(wait_s=WAIT_S).acquire().fence
    finally:
        os.kill(child, signal.SIGKILL)
