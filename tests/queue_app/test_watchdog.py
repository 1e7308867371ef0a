"""The soft time limit hits the handler and nothing after it; the watchdog's thread."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from queue_app import limits, watchdog
from queue_app.limits import Limits

TIMEOUT_S = 20.0


def spin(for_s: float) -> str:
    """Busy in Python, where an exception can be raised at every instruction."""
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        pass
    return "done"


def on_a_thread(function: Callable[[], Any]) -> Any:
    """Its result, or the exception that it ended with."""
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(function())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(TIMEOUT_S)
    return found[0]


def test_limits__task_queue_and_site__first_that_sets_one_wins() -> None:
    task, queue = (SimpleNamespace(soft_time_limit_s=s, time_limit_s=h) for s, h in ((None, 9.0), (2.0, 8.0)))
    assert limits.resolve(task, queue, soft_s=None, hard_s=60.0) == Limits(2.0, 9.0)
    assert limits.resolve(None, queue, soft_s=None, hard_s=60.0) == Limits(2.0, 8.0)
    assert limits.resolve(None, None, soft_s=None, hard_s=60.0) == Limits(None, 60.0)
    assert limits.resolve(None, None, soft_s=70.0, hard_s=60.0) == Limits(None, 60.0)


def test_call__handler_outlasts_its_limit__is_interrupted_on_a_thread() -> None:
    began = time.monotonic()
    ended = on_a_thread(lambda: watchdog.call(spin, TIMEOUT_S, limit_s=0.05))
    assert isinstance(ended, SoftTimeLimitExceeded)
    assert time.monotonic() - began < TIMEOUT_S / 2


def test_call__handler_catches_the_limit__its_result_stands() -> None:
    def tidy() -> str:
        try:
            return spin(TIMEOUT_S)
        except SoftTimeLimitExceeded:
            return "tidied up"

    assert on_a_thread(lambda: watchdog.call(tidy, limit_s=0.05)) == "tidied up"


def test_call__limit_comes_as_the_handler_ends__result_or_exception_and_nothing_later() -> None:
    def many() -> set[str]:
        seen = set()
        for _ in range(300):
            try:
                seen.add(watchdog.call(spin, 0.002, limit_s=0.002))
            except SoftTimeLimitExceeded:
                seen.add("interrupted")
            spin(0.0005)  # the next instructions of the thread: a late exception would hit here
        return seen

    assert on_a_thread(many) <= {"done", "interrupted"}


def _in_a_child(results: Any) -> None:
    def ended(function: Callable[..., Any], *arguments: Any, limit_s: float | None) -> str:
        began = time.monotonic()
        try:
            watchdog.call(function, *arguments, limit_s=limit_s)
        except SoftTimeLimitExceeded:
            return "interrupted" if time.monotonic() - began < TIMEOUT_S / 2 else "late"
        return "done"

    seen = [ended(time.sleep, TIMEOUT_S, limit_s=0.05), ended(spin, 0.01, limit_s=None)]
    for _ in range(300):
        ended(spin, 0.001, limit_s=0.001)
        spin(0.0002)
    results.put([*seen, ended(spin, 0.01, limit_s=TIMEOUT_S)])


def test_call__main_thread_of_a_child__a_blocking_call_is_interrupted_and_nothing_later() -> None:
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    child = context.Process(target=_in_a_child, args=(results,))
    child.start()
    child.join(6 * TIMEOUT_S)
    assert child.exitcode == 0
    assert results.get() == ["interrupted", "done", "done"]


@pytest.mark.parametrize("limit_s", [None, TIMEOUT_S])
def test_call__in_time__is_as_the_call_itself(limit_s: float | None) -> None:
    def fails() -> None:
        raise KeyError("x")

    assert watchdog.call(max, 1, 2, limit_s=limit_s) == 2
    assert isinstance(on_a_thread(lambda: watchdog.call(fails, limit_s=limit_s)), KeyError)


def test_watchdog__items_come_and_go__rings_for_those_still_watched() -> None:
    rung: list[str] = []

    class Item:
        def __init__(self, name: str, at: float) -> None:
            self.at, self.name = at, name

        def ring(self) -> None:
            rung.append(self.name)
            raise ValueError("the others still ring")

    dog, now = watchdog.Watchdog(), time.monotonic()
    late, gone, soon = Item("late", now + 0.15), Item("gone", now + 3600), Item("soon", now + 0.05)
    for item in (late, gone, soon):
        dog.watch(item)
    dog.forget(gone)
    gone.at = now + 0.1  # not before: on a machine that stands still it would ring before it is forgotten
    until = time.monotonic() + TIMEOUT_S
    while len(rung) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    assert rung == ["soon", "late"]


def test_call__limit_comes_while_the_alarm_is_being_set__the_watchdog_goes_on(
    switching_often: None,
) -> None:
    def late() -> None:
        for _ in range(1000):
            with contextlib.suppress(SoftTimeLimitExceeded):
                watchdog.call(
                    max, 1, 2, limit_s=0.00002
                )  # over before it is set, as on a machine that stands still

    threads = [threading.Thread(target=late, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(6 * TIMEOUT_S)
    assert not any(thread.is_alive() for thread in threads)
    ended = on_a_thread(lambda: watchdog.call(spin, TIMEOUT_S, limit_s=0.05))
    assert isinstance(ended, SoftTimeLimitExceeded)


@pytest.fixture
def switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
