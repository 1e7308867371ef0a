"""Asks a database in a thread of its own and waits for the answer only so long: a server that is gone holds up no page.

    start → thread with its own connection → Answer, or after PATIENCE_S an Answer that says so

Who asks the same while nobody has answered yet waits for the same thread, so that a page which is renewed every two
seconds does not pile threads up in front of a server that is away.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from time import monotonic
from typing import Any, Generic, TypeVar

from django.db import Error, connections

from . import health

T = TypeVar("T")
PATIENCE_S = 3.4  # a probe of a pool waits 3 s before it says why there was no connection

_running: dict[tuple[str, str], Future[Any]] = {}
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """value: None when there is an error; error: one line, without secrets; "" when there is none."""

    value: T | None
    error: str = ""


class Question(Generic[T]):
    """On its way. `answer` waits, counted from when it was put: several that are put first wait together."""

    def __init__(self, future: Future[Answer[T]], patience_s: float) -> None:
        self._future, self._patience_s, self._until = future, patience_s, monotonic() + patience_s

    def answer(self) -> Answer[T]:
        """Raises what `ask` raised, unless the database or the network did."""
        try:
            return self._future.result(max(0.0, self._until - monotonic()))
        except TimeoutError:
            return Answer(None, f"no answer within {self._patience_s:g} s")


def start(alias: str, what: str, ask: Callable[[], T], patience_s: float | None = None) -> Question[T]:
    """what: names the question; two that may be answered differently need two names."""
    if connections[alias].vendor == "sqlite":  # a file of this machine, or this thread's memory
        future: Future[Answer[T]] = Future()
        _run(alias, ask, future)
    else:
        future = _in_thread(alias, what, ask)
    return Question(future, patience_s or PATIENCE_S)


def of(alias: str, what: str, ask: Callable[[], T], patience_s: float | None = None) -> Answer[T]:
    return start(alias, what, ask, patience_s).answer()


def _in_thread(alias: str, what: str, ask: Callable[[], T]) -> Future[Answer[T]]:
    key = (alias, what)
    with _lock:
        found = _running.get(key)
        if found is not None:
            return found
        future: Future[Answer[T]] = Future()
        _running[key] = future

    def work() -> None:
        try:
            _run(alias, ask, future)
        finally:
            with _lock:
                del _running[key]
            connections.close_all()  # this thread's own

    threading.Thread(target=work, name=f"asking-{alias}-{what}", daemon=True).start()
    return future


def _run(alias: str, ask: Callable[[], T], future: Future[Answer[T]]) -> None:
    try:
        future.set_result(Answer(ask()))
    except (Error, OSError) as error:
        future.set_result(Answer(None, health.reason(alias, error)))
    except BaseException as error:  # noqa: BLE001  (whoever waits raises it)
        future.set_exception(error)
