"""One `transaction` for sync and async code, as a block and as a decorator.

Async: Django's `atomic` belongs to a thread, and tasks outside a request share one. An async block therefore runs in a
thread of its own, with its own connection: what another task does meanwhile is neither committed nor rolled back by it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import random
import sqlite3
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TypeVar, cast

from asgiref.sync import ThreadSensitiveContext, iscoroutinefunction, sync_to_async
from django.db import DatabaseError, connections
from django.db.transaction import Atomic, get_connection, on_commit

from .conf import conf

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0
_POSTGRESQL = {"40001", "40P01"}  # serialization_failure, deadlock_detected
_MYSQL = {1205, 1213}  # lock wait timeout, deadlock
_SQLITE = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class transaction:
    """`with`, `async with`, or the decorator of a function or a coroutine function.

    Everything commits together at the end of the outermost block, or nothing when an exception leaves it. A block
    inside another is a savepoint (`savepoint=False`: none). `durable=True` refuses to be inside another.

    Async blocks: a cancelled task rolls back; when the cancellation meets a commit on its way, the commit is finished
    first. Tasks started inside a block take part in it, take turns with blocks of their own, and must end before it.

    retry (decorator only, the outermost one): how often the function runs again after a deadlock, a serialization
    failure or a busy SQLite; None: BRAIN["DATABASE"]["TRANSACTION_RETRIES"].
    """

    def __init__(
        self,
        using: str = "default",
        *,
        durable: bool = False,
        savepoint: bool = True,
        retry: int | None = None,
    ) -> None:
        self._using = using
        self._retry = retry
        self._atomic = Atomic(using, savepoint, durable)
        self._open: _AsyncBlock | None = None

    def __enter__(self) -> None:
        self._refuse_retry()
        self._atomic.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._atomic.__exit__(kind, error, trace)

    async def __aenter__(self) -> None:
        self._refuse_retry()
        if self._open is not None:
            raise RuntimeError("this transaction is open already: call transaction() for each `async with`")
        block = self._open = _AsyncBlock(self._atomic, outer=_innermost.get())
        try:
            await block.__aenter__()
        except BaseException:
            self._open = None
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        block, self._open = cast("_AsyncBlock", self._open), None
        await block.__aexit__(kind, error, trace)

    def __call__(self, function: F) -> F:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function.__qualname__} is a generator: open the transaction inside it")
        if iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                return await self._acall(functools.partial(function, *args, **kwargs))

            return cast(F, run_async)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            return self._call(functools.partial(function, *args, **kwargs))

        return cast(F, run)

    def _call(self, function: Callable[[], T]) -> T:
        pauses_s = self._pauses_s(is_joining=get_connection(self._using).in_atomic_block)
        while True:
            committed: list[bool] = []
            try:
                with self._atomic:
                    if pauses_s:
                        on_commit(lambda: committed.append(True), self._using)  # noqa: B023  (runs in this round)
                    return function()
            except DatabaseError as error:
                # Committed already: it was a hook of on_commit that failed, and the work must not be done twice.
                if not pauses_s or committed or not is_transient(error):
                    raise
            time.sleep(pauses_s.pop())

    async def _acall(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        pauses_s = self._pauses_s(is_joining=_innermost.get() is not None)
        while True:
            committed: list[bool] = []
            try:
                async with _AsyncBlock(self._atomic, outer=_innermost.get()):
                    if pauses_s:
                        await sync_to_async(on_commit)(lambda: committed.append(True), self._using)  # noqa: B023
                    return await function()
            except DatabaseError as error:
                if not pauses_s or committed or not is_transient(error):
                    raise
            await asyncio.sleep(pauses_s.pop())

    def _pauses_s(self, *, is_joining: bool) -> list[float]:
        """The pause before each further run, the next one last. None when joining: the outermost block is what failed."""
        retries = conf().TRANSACTION_RETRIES if self._retry is None else self._retry
        if is_joining:
            return []
        doubling = (min(_FIRST_PAUSE_S * 2**n, _LONGEST_PAUSE_S) for n in range(retries))
        # Jitter, so that two transactions that deadlocked do not meet again.
        return [longest * random.uniform(0.5, 1.0) for longest in doubling][::-1]  # noqa: S311

    def _refuse_retry(self) -> None:
        if self._retry:
            raise TypeError("only a function can be run again: use @transaction(retry=…) as a decorator")


class _AsyncBlock:
    """One open `async with`. Its lock makes sibling tasks take turns: savepoints of a connection cannot interleave."""

    def __init__(self, atomic: Atomic, outer: _AsyncBlock | None) -> None:
        self._atomic = atomic
        self._outer = outer
        self._begun = False
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> None:
        if self._outer is not None:
            await self._outer._lock.acquire()
        else:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="transaction")
            self._thread = ThreadSensitiveContext(executor=self._executor)
            await self._thread.__aenter__()
        _innermost.set(self)
        try:
            await _to_the_end(sync_to_async(self._begin)())
        except BaseException as error:
            if self._begun:  # cancelled while BEGIN was on its way
                await self.__aexit__(type(error), error, error.__traceback__)
            else:
                await self._leave()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await _to_the_end(sync_to_async(self._atomic.__exit__)(kind, error, trace))
        finally:
            await self._leave()

    def _begin(self) -> None:
        self._atomic.__enter__()
        self._begun = True

    async def _leave(self) -> None:
        if self._outer is not None:
            _innermost.set(self._outer)
            self._outer._lock.release()
            return
        try:
            await _to_the_end(sync_to_async(connections.close_all)())
        finally:
            _innermost.set(None)
            await self._thread.__aexit__(None, None, None)
            self._executor.shutdown(wait=False)


_innermost: ContextVar[_AsyncBlock | None] = ContextVar("transaction", default=None)


async def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
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


def is_transient(error: BaseException) -> bool:
    """Whether the same transaction may succeed when it is run again: deadlock, serialization failure, lock timeout."""
    cause = error.__cause__ or error
    if getattr(cause, "sqlstate", None) in _POSTGRESQL:
        return True
    if isinstance(cause, sqlite3.Error):
        return (getattr(cause, "sqlite_errorcode", 0) & 0xFF) in _SQLITE  # the low byte is the primary code
    return type(cause).__module__.startswith("MySQLdb") and bool(cause.args) and cause.args[0] in _MYSQL
