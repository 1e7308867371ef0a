"""What the tests of loading load with: functions that count their runs and do as they are told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from cache_app import cached, flights, stats

WAIT_S = 60.0  # for what must happen: a busy machine takes its time


class Loader:
    """Counts its runs and answers what it was given: a value, an exception, or what a function of the run number says."""

    def __init__(self, answer: Any = "value", delay_s: float = 0.0) -> None:
        self.answer, self.delay_s, self.runs = answer, delay_s, 0
        self.began, self.may_end = threading.Semaphore(0), threading.Event()
        self.may_end.set()

    def __call__(self) -> Any:
        self.runs += 1
        run = self.runs
        self.began.release()
        time.sleep(self.delay_s)
        assert self.may_end.wait(WAIT_S)
        return self._answered(run)

    async def awaited(self) -> Any:
        self.runs += 1
        run = self.runs
        self.began.release()
        await asyncio.sleep(self.delay_s)
        while not self.may_end.is_set():
            await asyncio.sleep(0.002)
        return self._answered(run)

    def _answered(self, run: int) -> Any:
        found = self.answer(run) if callable(self.answer) else self.answer
        if isinstance(found, BaseException):
            raise found
        return found


def wrapped(loader: Loader, **options: Any) -> Any:
    @cached(**options)
    def function(a: Any = 1, b: Any = 2) -> Any:
        return loader()

    return function


def awrapped(loader: Loader, **options: Any) -> Any:
    @cached(**options)
    async def function(a: Any = 1, b: Any = 2) -> Any:
        return await loader.awaited()

    return function


class Counted:
    """How often a function's events happened since this was made."""

    def __init__(self, function: Any, alias: str = "default") -> None:
        self.counts = stats.counts(alias, function.name)
        self.before = self.counts.events()

    def __getattr__(self, event: str) -> int:
        assert event in stats.EVENTS, event
        return self.counts.events().get(event, 0) - self.before.get(event, 0)


class Thread(threading.Thread):
    """Keeps what its function returned or raised; done() in time or the test fails."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        super().__init__(daemon=True)
        self.function, self.args = function, args
        self.result: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.function(*self.args)
        except BaseException as error:
            self.result = error

    def done(self) -> Any:
        self.join(WAIT_S)
        assert not self.is_alive(), "hangs"
        return self.result


def in_threads(function: Callable[[], Any], n: int) -> list[Any]:
    return [thread.done() for thread in [Thread(function) for _ in range(n)]]


def followers() -> int:
    """How many threads wait for the flights that are in the air."""
    events = [flight._event for flight in list(flights._flights.values())]
    return sum(len(event._cond._waiters) for event in events if event is not None)  # type: ignore[attr-defined]


def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.002)


async def auntil(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, "never happened"
        await asyncio.sleep(0.002)
