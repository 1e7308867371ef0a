from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import Any

import pytest
import structlog

from cache_app import background
from cache_app.background import Threads

from .loaders import auntil, until


def here() -> contextvars.Context:
    return contextvars.copy_context()


def test_submit__more_work_than_threads__runs_all_of_it_on_so_many() -> None:
    threads, seen, done = Threads(lambda: 2), set[str](), []

    def work(number: int) -> None:
        seen.add(str(threading.get_ident()))
        time.sleep(0.005)
        done.append(number)

    assert all(threads.submit(here(), lambda n=n: work(n)) for n in range(20))  # type: ignore[misc]
    until(lambda: len(done) == 20)
    assert 1 <= len(seen) <= 2


def test_submit__one_thread_is_idle__no_other_is_started() -> None:
    threads, done = Threads(lambda: 4), list[int]()
    for number in range(5):
        threads.submit(here(), lambda n=number: done.append(n))  # type: ignore[misc]
        until(lambda n=number: len(done) == n + 1 and threads._idle == 1)  # type: ignore[misc]
    assert threads._alive == 1


def test_submit__no_room__is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "BACKLOG", 2)
    threads, go = Threads(lambda: 1), threading.Event()
    began = threading.Event()
    threads.submit(here(), lambda: (began.set(), go.wait(60)))
    began.wait(60)
    assert [threads.submit(here(), lambda: None) for _ in range(3)] == [True, True, False]
    go.set()
    until(lambda: threads._idle == 1)
    assert threads.submit(here(), lambda: None) is True


def test_thread__without_work_for_long__ends_and_is_made_again() -> None:
    threads, done = Threads(lambda: 1, idle_s=0.02), list[int]()
    threads.submit(here(), lambda: done.append(1))
    until(lambda: done == [1] and threads._alive == 0)
    threads.submit(here(), lambda: done.append(2))
    until(lambda: done == [1, 2])


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1)])
def test_thread__work_raises__is_said_and_the_thread_goes_on(error: BaseException) -> None:
    threads, done = Threads(lambda: 1), list[int]()

    def fails() -> None:
        raise error

    with structlog.testing.capture_logs() as lines:
        threads.submit(here(), fails)
        threads.submit(here(), lambda: done.append(1))
        until(lambda: done)
    assert [(line["event"], line["error"]) for line in lines] == [
        ("cache_background_failed", type(error).__name__)
    ]
    assert threads._alive == 1


def test_thread__cannot_be_started__is_refused_unless_another_one_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    threads, go = Threads(lambda: 2), threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fails)
        assert threads.submit(here(), lambda: None) is False
    assert threads.submit(here(), lambda: go.wait(60)) is True
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fails)
        assert threads.submit(here(), lambda: None) is True
    go.set()


def test_work__context__is_the_one_given() -> None:
    threads, found = Threads(lambda: 1), list[str]()
    name = contextvars.ContextVar("name", default="none")
    name.set("mine")
    threads.submit(here(), lambda: found.append(name.get()))
    until(lambda: found == ["mine"])
    assert threads.runs_here() is False
    threads.submit(here(), lambda: found.append(str(threads.runs_here())))
    until(lambda: found == ["mine", "True"])


async def test_start__task__is_held_until_it_is_done() -> None:
    done = list[int]()

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.append(1)

    background.start(here(), work())
    assert len(background._tasks) == 1
    await auntil(lambda: not background._tasks)
    assert done == [1]


async def test_start__task_raises__is_said() -> None:
    async def fails() -> None:
        raise ValueError("no")

    with structlog.testing.capture_logs() as lines:
        background.start(here(), fails())
        await auntil(lambda: not background._tasks)
    assert [line["event"] for line in lines] == ["cache_background_failed"]
