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
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from types import TracebackType
from typing import Any, NoReturn, TypeVar, cast

import structlog
from asgiref.sync import ThreadSensitiveContext, async_to_sync, iscoroutinefunction, sync_to_async
from django.db import DatabaseError, connections
from django.db.transaction import Atomic, get_connection
from django.db.transaction import on_commit as django_on_commit

from .awaiting import Pending, dual, is_in_loop, to_the_end
from .conf import conf
from .transaction_bounds import Bounds, TransactionTimeout, check

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

log = structlog.get_logger(__name__)

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

    isolation: "serializable", "repeatable read", "read committed" or "read uncommitted"; the outermost block chooses it.
    timeout_s: seconds until TransactionTimeout, for all of it: each statement and its waiting for locks, what happens
    between them, further runs and their pauses. A block that is too late at its end is rolled back.

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
        isolation: str | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._using = using
        self._retry = retry
        self._isolation = check(isolation, timeout_s)
        self._timeout_s = timeout_s
        self._atomic = Atomic(using, savepoint, durable)
        self._open: _AsyncBlock | None = None
        self._here = threading.local()  # one object may be the block of several threads at once

    def __enter__(self) -> None:
        self._refuse_retry()
        if is_in_loop():
            raise RuntimeError("within a running loop write `async with db.transaction()`")
        block = self._block(self._deadline())
        block.__enter__()
        self._here.blocks = [*getattr(self._here, "blocks", ()), block]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._here.blocks.pop().__exit__(kind, error, trace)

    async def __aenter__(self) -> None:
        self._refuse_retry()
        if self._open is not None:
            raise RuntimeError("this transaction is open already: call transaction() for each `async with`")
        block = self._open = self._async_block(self._deadline())
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
        deadline = self._deadline()
        while True:
            committed: list[bool] = []
            try:
                with self._block(deadline):
                    if pauses_s:
                        django_on_commit(lambda: committed.append(True), self._using)  # noqa: B023  (runs in this round)
                    return function()
            except DatabaseError as error:
                # Committed already: it was a hook of on_commit that failed, and the work must not be done twice.
                if not pauses_s or committed or not is_transient(error):
                    raise
                pause_s = _next_pause(pauses_s, deadline, error)
            time.sleep(pause_s)

    async def _acall(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        pauses_s = self._pauses_s(is_joining=_joined(self._using, _innermost.get()) is not None)
        deadline = self._deadline()
        while True:
            committed: list[bool] = []
            try:
                async with self._async_block(deadline):
                    if pauses_s:
                        await sync_to_async(django_on_commit)(lambda: committed.append(True), self._using)  # noqa: B023
                    return await function()
            except DatabaseError as error:
                if not pauses_s or committed or not is_transient(error):
                    raise
                pause_s = _next_pause(pauses_s, deadline, error)
            await asyncio.sleep(pause_s)

    def _block(self, deadline: float | None) -> _Block:
        return _Block(self._using, self._atomic, self._isolation, deadline)

    def _async_block(self, deadline: float | None) -> _AsyncBlock:
        return _AsyncBlock(self._block(deadline), _innermost.get(), deadline)

    def _deadline(self) -> float | None:
        return None if self._timeout_s is None else time.monotonic() + self._timeout_s

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
            raise TypeError(
                "a block cannot be run again, only a function: use @db.transaction(retry=…) as a decorator, or "
                "db.run_in_transaction(function, …, retry=…)"
            )


class _Block:
    """One open block in its thread: Django's atomic, and what bounds it."""

    def __init__(self, alias: str, atomic: Atomic, isolation: str | None, deadline: float | None) -> None:
        self.alias = alias
        self._atomic = atomic
        self._bounded_by = isolation, deadline
        self._bounds: Bounds | None = None

    def __enter__(self) -> None:
        bounds = Bounds(self.alias, *self._bounded_by)  # here: connections belong to the thread
        is_outermost = not get_connection(self.alias).in_atomic_block
        bounds.before()
        try:
            self._atomic.__enter__()
        except BaseException as error:  # noqa: BLE001  (raised again)
            bounds.ended()
            _raise_translated(bounds, error)
        self._bounds = bounds
        try:
            bounds.begun(is_outermost=is_outermost)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        bounds, self._bounds = cast(Bounds, self._bounds), None
        late = bounds.timeout() if kind is None and bounds.is_late else None
        bounds.ending()
        try:
            if late is None:
                self._atomic.__exit__(kind, error, trace)
            else:
                self._atomic.__exit__(type(late), late, None)
        finally:
            bounds.ended()
        if late is not None:
            raise late


class _AsyncBlock:
    """One open `async with`. Its lock makes sibling tasks take turns: savepoints of a connection cannot interleave."""

    def __init__(self, block: _Block, outer: _AsyncBlock | None, deadline: float | None) -> None:
        self.alias = block.alias
        self.outer = outer
        self.hooks: list[tuple[Hook, bool]] = []
        self._block = block
        self._begun = False
        self._lock = asyncio.Lock()
        self._deadline = deadline
        self._timer: asyncio.Timeout | None = None

    async def __aenter__(self) -> None:
        if self._deadline is not None:
            self._timer = asyncio.timeout(max(0.0, self._deadline - time.monotonic()))
            await self._timer.__aenter__()
        try:
            await self._enter()
        except BaseException as error:
            await self._stop_timer(error)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = error
        if self._timer is not None and not self._timer.expired():
            self._timer.reschedule(None)  # it must not cut a commit
        try:
            await self._leave(kind, error, trace)
        except BaseException as failed:  # noqa: BLE001  (raised again)
            ended = failed
        await self._stop_timer(ended)
        if ended is not None and ended is not error:
            raise ended

    async def _enter(self) -> None:
        if self.outer is not None:
            await self.outer._lock.acquire()
        else:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="transaction")
            self._thread = ThreadSensitiveContext(executor=self._executor)
            await self._thread.__aenter__()
        _innermost.set(self)
        try:
            await to_the_end(sync_to_async(self._begin)())
        except BaseException as error:
            if self._begun:  # cancelled while BEGIN was on its way
                await self._leave(type(error), error, error.__traceback__)
            else:
                await self._give_back()
            raise

    async def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await to_the_end(sync_to_async(self._block.__exit__)(kind, error, trace))
            if kind is None:
                await self._run_hooks()
        finally:
            await self._give_back()

    def _begin(self) -> None:
        self._block.__enter__()
        self._begun = True

    async def _give_back(self) -> None:
        if self.outer is not None:
            _innermost.set(self.outer)
            self.outer._lock.release()
            return
        try:
            await to_the_end(sync_to_async(connections.close_all)())
        finally:
            _innermost.set(None)
            await self._thread.__aexit__(None, None, None)
            self._executor.shutdown(wait=False)

    async def _run_hooks(self) -> None:
        """After the commit; a block inside another hands them on to it."""
        around = _joined(self.alias, self.outer)
        if around is not None:
            around.hooks += self.hooks
            return
        for hook, is_robust in self.hooks:
            try:
                await (hook() if iscoroutinefunction(hook) else sync_to_async(hook)())
            except Exception:
                if not is_robust:
                    raise
                log.exception("on_commit_failed", hook=getattr(hook, "__qualname__", repr(hook)))

    async def _stop_timer(self, error: BaseException | None) -> None:
        """Raises TransactionTimeout when it was the timer that cancelled the block."""
        timer, self._timer = self._timer, None
        if timer is None:
            return
        try:
            await timer.__aexit__(type(error) if error else None, error, None)
        except TimeoutError:
            raise TransactionTimeout("the transaction did not end within its timeout_s") from error


_innermost: ContextVar[_AsyncBlock | None] = ContextVar("transaction", default=None)


def run_in_transaction(
    function: Callable[..., Any],
    *args: Any,
    using: str = "default",
    retry: int | None = None,
    isolation: str | None = None,
    timeout_s: float | None = None,
    **kwargs: Any,
) -> Any:
    """function(*args, **kwargs) in a transaction of its own, run again after a deadlock; see `transaction`.

    Gives what it returns; awaited within a running loop. A plain function then runs in a thread as a whole.
    """
    bounded = transaction(using, retry=retry, isolation=isolation, timeout_s=timeout_s)
    run = bounded(functools.partial(function, *args, **kwargs))
    if iscoroutinefunction(function):
        return run() if not is_in_loop() else Pending(run, "run_in_transaction")
    return dual(run, "run_in_transaction")


Hook = Callable[[], Any]


def on_commit(function: Hook, using: str = "default", *, robust: bool = False) -> Any:
    """Run `function`, plain or a coroutine function, after the commit of the outermost block; never after a rollback.

    Awaited within a running loop. Without a transaction it runs at once. robust: an error is logged, and the other
    functions run.
    """
    if is_in_loop():
        return Pending(lambda: _register(function, using, robust), "db.on_commit")
    plain = async_to_sync(function) if iscoroutinefunction(function) else function
    return django_on_commit(plain, using, robust)


async def _register(function: Hook, alias: str, robust: bool) -> None:
    block = _joined(alias, _innermost.get())
    if block is not None:
        block.hooks.append((function, robust))
    elif iscoroutinefunction(function):
        await function()
    else:
        await sync_to_async(django_on_commit)(function, alias, robust)


def _joined(alias: str, at: _AsyncBlock | None) -> _AsyncBlock | None:
    """The nearest open block of this database, from `at` outwards."""
    while at is not None and at.alias != alias:
        at = at.outer
    return at


def _next_pause(pauses_s: list[float], deadline: float | None, error: BaseException) -> float:
    pause_s = pauses_s.pop()
    if deadline is not None and time.monotonic() + pause_s >= deadline:
        raise TransactionTimeout("no further run fits into the transaction's timeout_s") from error
    return pause_s


def _raise_translated(bounds: Bounds, error: BaseException) -> NoReturn:
    translated = bounds.translated(error)
    if translated is error:
        raise error
    raise translated from error


def is_transient(error: BaseException) -> bool:
    """Whether the same transaction may succeed when it is run again: deadlock, serialization failure, lock timeout."""
    if isinstance(error, TransactionTimeout):
        return False
    cause = error.__cause__ or error
    if getattr(cause, "sqlstate", None) in _POSTGRESQL:
        return True
    if isinstance(cause, sqlite3.Error):
        return (getattr(cause, "sqlite_errorcode", 0) & 0xFF) in _SQLITE  # the low byte is the primary code
    return type(cause).__module__.startswith("MySQLdb") and bool(cause.args) and cause.args[0] in _MYSQL
