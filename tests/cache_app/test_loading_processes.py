"""Loader runs over several processes, counted in the store itself."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import LazySettings

from cache_app import backends, cached, stats
from cache_app.connections import client

from .loaders import Thread, until

PROCESSES, CALLERS = 4, 50
fork = multiprocessing.get_context("fork")


@cached(ttl_s=60, key=lambda counter, load_s: counter)
def load(counter: str, load_s: float) -> dict[str, Any]:
    run = client().incr(counter)
    time.sleep(load_s)
    return {"run": run, "pid": os.getpid()}


@cached(ttl_s=60, key=lambda counter, load_s: counter)
async def aload(counter: str, load_s: float) -> dict[str, Any]:
    run = client().incr(counter)
    await asyncio.sleep(load_s)
    return {"run": run, "pid": os.getpid()}


def in_threads(counter: str, load_s: float) -> list[Any]:
    return [thread.done() for thread in [Thread(load, counter, load_s) for _ in range(CALLERS)]]


def in_tasks(counter: str, load_s: float) -> list[Any]:
    async def main() -> list[Any]:
        calls = (aload(counter, load_s) for _ in range(CALLERS))
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(main())


def once(counter: str, load_s: float) -> list[Any]:
    return [load(counter, load_s)]


class Process:
    """Starts when `go` opens; its results come through a pipe."""

    def __init__(self, work: Callable[[str, float], list[Any]], counter: str, load_s: float, go: Any) -> None:
        self.pipe, child_end = fork.Pipe(duplex=False)
        self.process = fork.Process(
            target=self._run, args=(work, counter, load_s, go, child_end), daemon=True
        )
        self.process.start()
        child_end.close()

    @staticmethod
    def _run(work: Any, counter: str, load_s: float, go: Any, end: Any) -> None:
        assert go.wait(120)
        end.send(work(counter, load_s))

    def found(self) -> list[Any]:
        assert self.pipe.poll(120), "hangs"
        found: list[Any] = self.pipe.recv()
        self.process.join(60)
        return found


@pytest.mark.parametrize("work", [in_threads, in_tasks])
def test_cold_key__four_processes_of_fifty__load_exactly_once(work: Any, prefix: str) -> None:
    go = fork.Event()
    processes = [Process(work, prefix, 0.05, go) for _ in range(PROCESSES)]
    go.set()
    found = [answer for process in processes for answer in process.found()]
    assert len(found) == PROCESSES * CALLERS
    assert client().get(prefix) == b"1"
    assert {answer["run"] for answer in found} == {1}


@pytest.mark.parametrize("work", [in_threads, in_tasks])
def test_leader__killed_while_it_loads__exactly_one_other_loads(
    work: Any, prefix: str, settings: LazySettings
) -> None:
    settings.BRAIN = settings.BRAIN | {"CACHE": {"REBUILD_LEASE_S": 1.5}}
    go = fork.Event()
    go.set()
    leader = Process(work, prefix, 600.0, go)
    until(lambda: client().get(prefix) == b"1")
    others = [Process(work, prefix, 0.05, go) for _ in range(2)]
    time.sleep(1.8)  # longer than the lease: it is renewed while its holder lives
    assert client().get(prefix) == b"1"
    assert leader.process.pid is not None
    os.kill(leader.process.pid, signal.SIGKILL)
    found = [answer for process in others for answer in process.found()]
    assert client().get(prefix) == b"2"
    assert {answer["run"] for answer in found} == {2}


def test_leader__stopped_beyond_its_lease__the_others_go_on_and_its_late_result_replaces_nothing(
    prefix: str, settings: LazySettings
) -> None:
    settings.BRAIN = settings.BRAIN | {"CACHE": {"REBUILD_LEASE_S": 0.3}}
    go = fork.Event()
    go.set()
    leader = Process(once, prefix, 1.0, go)  # long enough to be stopped in time
    until(lambda: client().get(prefix) == b"1")
    assert leader.process.pid is not None
    os.kill(leader.process.pid, signal.SIGSTOP)
    try:
        assert load(prefix, 0.0)["run"] == 2
    finally:
        os.kill(leader.process.pid, signal.SIGCONT)
    assert leader.found()[0]["run"] == 1
    assert load.lookup(prefix, 0.0).value["run"] == 2
    assert client().get(prefix) == b"2"


def test_fork__of_a_process_that_loads__the_child_loads_for_itself(prefix: str) -> None:
    """Threads, flights and connections of the parent are not the child's."""
    load_s = 0.3
    thread = Thread(load, prefix, load_s)
    until(lambda: client().get(prefix) == b"1")
    go = fork.Event()
    go.set()
    child = Process(once, prefix, load_s, go)
    assert child.found() == [thread.done()]
    assert client().get(prefix) == b"1"


def test_fork__after_work_in_the_background__the_child_has_threads_of_its_own(prefix: str) -> None:
    @cached(ttl_s=60, hard_timeout_s=60, key=lambda name: name)
    def limited(name: str) -> str:
        return threading.current_thread().name

    assert limited("parent") == "cache-loads"
    go = fork.Event()
    go.set()
    child = Process(lambda counter, load_s: [limited("child")], prefix, 0.0, go)
    assert child.found() == ["cache-loads"]


def test_interpreter__ends_while_a_load_hangs_in_the_background__ends_all_the_same(prefix: str) -> None:
    @cached(ttl_s=60, hard_timeout_s=0.05, key=lambda name: name)
    def hangs(name: str) -> None:
        time.sleep(600)

    def work(counter: str, load_s: float) -> list[Any]:
        try:
            hangs(counter)
        except TimeoutError as error:
            return [type(error).__name__]
        return []

    go = fork.Event()
    go.set()
    child = Process(work, prefix, 0.0, go)
    assert child.found() == ["LoadTimeout"]
    child.process.join(60)
    assert child.process.exitcode == 0


def test_counts__of_callers_in_all_processes__add_up(prefix: str) -> None:
    def work(counter: str, load_s: float) -> list[Any]:
        in_threads(counter, load_s)
        return [stats.counts("default", load.name).events()]

    go = fork.Event()
    processes = [Process(work, prefix, 0.05, go) for _ in range(2)]
    go.set()
    events = [process.found()[0] for process in processes]
    assert sum(found.get("loads", 0) for found in events) == 1
    answered = sum(
        sum(found.get(event, 0) for event in ("hits_l2", "coalesced", "loads")) for found in events
    )
    assert answered == 2 * CALLERS
    assert backends.backend().alias == "default"
