"""One event loop for each process, on a thread of its own, for `async def` handlers: a slot's thread waits for its job.

    slot → coroutine on the loop → sync_to_async → the job's own thread and database connection, closed at its end

An exception that somebody raises in the waiting thread (a time limit) and a cancelled job cancel the coroutine.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from asgiref.sync import ThreadSensitiveContext, async_to_sync
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connections

from .runs import Cancelled, Run

LOOK_S = (
    0.25  # between two looks whether the job is cancelled; an exception for this thread waits as long at most
)

# (soft limit in seconds,) of a run whose handler uses the connections of the thread that runs it; see inline.py.
_inline: ContextVar[tuple[float | None] | None] = ContextVar("queue_inline", default=None)

_lock = threading.Lock()
_loop: tuple[int, asyncio.AbstractEventLoop] | None = None  # and the process that it belongs to


def run(
    function: Callable[..., Any],
    args: Sequence[Any],
    run: Run,
    kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Call the coroutine function on the loop and return its result. Raises Cancelled when the job is, and ended for it."""
    inline = _inline.get()
    if inline is not None:
        return async_to_sync(_limited)(function, args, kwargs or {}, inline[0])
    job = _Job(function, args, kwargs or {})
    try:
        job.start(_running_loop())
        while not job.ended.wait(LOOK_S):
            if run.cancel_requested and not run.cancel_is_told:
                job.cancel()
    except BaseException:
        # A time limit for this thread: the coroutine may clean up, and its end is waited for. A second one is not heard.
        job.cancel()
        if job.has_started:
            job.ended.wait()
        raise
    return job.result(is_cancelled=run.cancel_requested)


@contextmanager
def inline(limit_s: float | None) -> Iterator[None]:
    """In the block a coroutine's synchronous parts, the ORM's too, run on the thread that waits for it: within its
    transaction, and its connections are not closed. limit_s: the soft limit, which the thread itself does not have.
    """
    token = _inline.set((limit_s,))
    try:
        yield
    finally:
        _inline.reset(token)


async def _limited(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], limit_s: float | None
) -> Any:
    try:
        async with asyncio.timeout(limit_s) as timeout:
            return await function(*args, **kwargs)
    except TimeoutError:
        if timeout.expired():
            raise SoftTimeLimitExceeded from None
        raise
    except asyncio.CancelledError as error:
        raise RuntimeError("the handler's coroutine cancelled itself") from error


class _Job:
    """One coroutine on its way. `ended` is set when it has ended and its connection is closed."""

    def __init__(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self._function, self._args, self._kwargs = function, args, kwargs
        self._outcome: Future[Any] = Future()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="queue-async")
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_cancelled = False
        self.has_started = False
        self.ended = threading.Event()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # The request id, the log's fields and the parent of new jobs go along.
        loop.call_soon_threadsafe(self._begin, context=contextvars.copy_context())
        self.has_started = True

    def cancel(self) -> None:
        if self._is_cancelled:
            return
        self._is_cancelled = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop)

    def result(self, *, is_cancelled: bool) -> Any:
        try:
            return self._outcome.result()
        except asyncio.CancelledError as error:
            if is_cancelled:
                raise Cancelled from error
            raise RuntimeError("the handler's coroutine cancelled itself") from error

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._perform())
        self._task.add_done_callback(self._finish)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _perform(self) -> None:
        try:
            async with ThreadSensitiveContext(executor=self._executor):
                value = await self._function(*self._args, **self._kwargs)
            self._outcome.set_result(value)
        except BaseException as error:  # noqa: BLE001  (a SystemExit of the handler must not end the loop of all others)
            self._outcome.set_exception(error)

    def _finish(self, task: asyncio.Task[None]) -> None:
        if not self._outcome.done():  # cancelled before its first step
            self._outcome.set_exception(asyncio.CancelledError())
        _close(self._executor, self.ended.set)


def _close(executor: ThreadPoolExecutor, ended: Callable[[], None]) -> None:
    """Close the connections of the job's thread, if it came to have one; the loop does not wait for it."""
    if executor._threads:  # started by the first call: most handlers without the ORM never do
        executor.submit(connections.close_all).add_done_callback(lambda _: ended())
    else:
        ended()
    executor.shutdown(wait=False)


def _running_loop() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None or _loop[0] != os.getpid():  # a child of a fork has the loop without its thread
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="queue-async", daemon=True).start()
            _loop = os.getpid(), loop
        return _loop[1]
