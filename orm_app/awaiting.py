"""One name for sync and async callers: the value without a running loop, an awaitable within one.

Within a loop the work runs in the thread that Django's async views use (`sync_to_async`), inside an async
`db.transaction()` in the thread of that transaction: never on the loop's own.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections.abc import Callable, Coroutine, Generator
from types import FrameType, TracebackType
from typing import Any, Generic, NoReturn, TypeVar

import structlog
from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation

T = TypeVar("T")
U = TypeVar("U")

log = structlog.get_logger(__name__)


class NeverAwaited(RuntimeWarning):
    """A save or a query was begun within a running loop and never awaited: it has not happened."""


def dual(work: Callable[[], T], name: str) -> Any:
    """work(), or within a running loop an awaitable of it. name: of the call, for messages (`User.save`)."""
    if asyncio._get_running_loop() is None:
        return work()
    return Pending(lambda: sync_to_async(work)(), name)


def is_in_loop() -> bool:
    return asyncio._get_running_loop() is not None


class Pending(Coroutine[Any, Any, T], Generic[T]):
    """What a dual call returns within a loop. Nothing has happened yet; `await` does it, once.

    A Coroutine, so that `asyncio.gather`, `wait_for` and tasks take it. Whoever uses it as a value is told to await.
    """

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, T]], name: str) -> None:
        self._begin: Callable[[], Coroutine[Any, Any, T]] | None = begin
        self._name = name
        self._site = call_site()
        self._running: Coroutine[Any, Any, T] | None = None

    def __await__(self) -> Generator[Any, Any, T]:
        return self._begun().__await__()

    def send(self, value: Any) -> Any:
        return (self._running or self._begun()).send(value)

    def throw(
        self,
        kind: Any,
        value: Any = None,
        trace: TracebackType | None = None,
    ) -> Any:
        return (self._running or self._begun()).throw(kind if value is None else value)

    def close(self) -> None:
        self._begin = None
        if self._running is not None:
            self._running.close()

    def _begun(self) -> Coroutine[Any, Any, T]:
        if self._begin is None:
            raise RuntimeError(f"{self._name} was awaited already: call it again")
        self._running, self._begin = self._begin(), None
        return self._running

    def __del__(self) -> None:
        if getattr(self, "_begin", None) is None:
            return
        log.error("never_awaited", call=self._name, site=self._site)
        warnings.warn(
            f"{self._name} at {self._site} was never awaited: it has not happened",
            NeverAwaited,
            stacklevel=2,
            source=self,
        )

    def __bool__(self) -> NoReturn:
        raise TypeError(f"`await` {self._name}(…) at {self._site}: this is not its answer yet")

    def __iter__(self) -> NoReturn:
        raise TypeError(f"`await` {self._name}(…) at {self._site}: this is not its answer yet")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"`await` {self._name}(…) at {self._site} first, then ask for .{name}")

    def __repr__(self) -> str:
        return f"<{self._name} at {self._site}: await it>"


def refuse_django_within_loop(name: str) -> None:
    """Raises SynchronousOnlyOperation when Django's own sync code calls us within a loop: it would not await us, and
    `objects.create()` would return a row that was never stored."""
    caller: str = sys._getframe(2).f_globals.get("__name__", "")
    if caller.startswith("django.") and is_in_loop():
        raise SynchronousOnlyOperation(
            f"{name} was called by {caller} within a running loop: use its async form (acreate, aget_or_create …)"
        )


def call_site() -> str:
    """file:line of the nearest caller outside of this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("orm_app."):
        frame = frame.f_back
    if frame is None:
        return "unknown"
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


async def to_the_end(work: Coroutine[Any, Any, U]) -> U:
    """Await `work` even when the caller is cancelled meanwhile; the cancellation is raised when the work is done."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from task.exception()
    return task.result()
