"""Asks a database in a thread of its own and waits for the answer only so long: a server that is gone holds up no page.

    start → thread with its own connection → Answer, or after PATIENCE_S an Answer that says so

Who asks the same while nobody has answered yet waits for the same thread, so that a page which is renewed every two
seconds does not pile threads up in front of a server that is away. And where the last one was slow to say that it is,
the next one is waited for a moment only, and the last answer stands meanwhile.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from time import monotonic
from typing import Any, Generic, TypeVar

from django.db import Error, connections

from . import health, session_limits

T = TypeVar("T")
PATIENCE_S = 3.4  # a probe of a pool waits 3 s before it says why there was no connection

STATEMENT_S = 10.0  # nobody may wait for it any more, and the server shall not go on for nobody
_SLOW_S = 1.0  # a refusal that took longer is kept for the next one who asks
_KEPT_S = 15.0
_MOMENT_S = 0.3

_running: dict[tuple[str, str], Future[Any]] = {}
_slow: dict[tuple[str, str], tuple[float, Answer[Any]]] = {}  # when it came, by time.monotonic()
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """value: None when there is an error; error: one line, without secrets; "" when there is none."""

    value: T | None
    error: str = ""


class Question(Generic[T]):
    """On its way. `answer` waits, counted from when it was put: several that are put first wait together."""

    def __init__(self, future: Future[Answer[T]], patience_s: float, last: Answer[T] | None) -> None:
        self._future, self._patience_s, self._last = future, patience_s, last
        self._until = monotonic() + (patience_s if last is None else _MOMENT_S)

    def answer(self) -> Answer[T]:
        """Raises what `ask` raised, unless the database or the network did."""
        try:
            return self._future.result(max(0.0, self._until - monotonic()))
        except TimeoutError:
            return self._last or Answer(None, f"no answer within {self._patience_s:g} s")


def start(alias: str, what: str, ask: Callable[[], T], patience_s: float | None = None) -> Question[T]:
    """what: names the question; two that may be answered differently need two names."""
    if connections[alias].vendor == "sqlite":  # a file of this machine, or this thread's memory
        future: Future[Answer[T]] = Future()
        _run(alias, ask, future)
        return Question(future, PATIENCE_S, None)
    key = (alias, what)
    came_at, last = _slow.get(key, (0.0, None))
    is_fresh = monotonic() - came_at < _KEPT_S
    return Question(_in_thread(key, ask), patience_s or PATIENCE_S, last if is_fresh else None)


def of(alias: str, what: str, ask: Callable[[], T], patience_s: float | None = None) -> Answer[T]:
    return start(alias, what, ask, patience_s).answer()


def once_up(alias: str, what: str, ask: Callable[[], T], patience_s: float) -> Answer[T]:
    """For what takes its time where the database is well: one that is away is found out as quickly as elsewhere."""
    probe = of(alias, "probe", lambda: health.check(alias))
    if probe.value is None or not probe.value.ok:
        return Answer(None, probe.error or (probe.value.detail if probe.value else ""))
    return of(alias, what, ask, patience_s)


def _in_thread(key: tuple[str, str], ask: Callable[[], T]) -> Future[Answer[T]]:
    with _lock:
        found = _running.get(key)
        if found is not None:
            return found
        future: Future[Answer[T]] = Future()
        _running[key] = future
    thread = threading.Thread(target=_work, args=(key, ask, future), name=f"asking-{key}", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no more threads: those who ask later must not wait for this one
        with _lock:
            del _running[key]
        raise
    return future


def _work(key: tuple[str, str], ask: Callable[[], T], future: Future[Answer[T]]) -> None:
    began = monotonic()
    try:
        _run(key[0], ask, future)
    finally:
        with _lock:
            del _running[key]
            _keep(key, future, monotonic() - began)
        connections.close_all()  # this thread's own


def _keep(key: tuple[str, str], future: Future[Answer[T]], took_s: float) -> None:
    now = monotonic()
    for old in [old for old, (came_at, _) in _slow.items() if now - came_at > _KEPT_S]:
        del _slow[old]
    _slow.pop(key, None)
    if took_s >= _SLOW_S and future.exception() is None and _says_down(future.result()):
        _slow[key] = (now, future.result())


def _says_down(answer: Answer[Any]) -> bool:
    return bool(answer.error) or getattr(answer.value, "state", "") == "down"  # of a Status, or of a Health


def _run(alias: str, ask: Callable[[], T], future: Future[Answer[T]]) -> None:
    try:
        future.set_result(_answer(alias, ask))
    except BaseException as error:  # noqa: BLE001  (whoever waits raises it)
        future.set_exception(error)


def _forked() -> None:
    """The parent's threads do not come along: a child that waited for them would never get an answer."""
    global _lock
    _lock = threading.Lock()
    _running.clear()


def _answer(alias: str, ask: Callable[[], T]) -> Answer[T]:
    try:
        with session_limits.limited(alias, STATEMENT_S):
            return Answer(ask())
    except (Error, OSError) as error:
        return Answer(None, health.reason(alias, error))


os.register_at_fork(after_in_child=_forked)
