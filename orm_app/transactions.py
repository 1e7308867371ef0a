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
from types import TracebackType
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.db import DatabaseError
from django.db.transaction import get_connection
from django.db.transaction import on_commit as django_on_commit

from . import mongo
from .awaiting import Pending, dual, is_in_loop
from .conf import conf
from .transaction_blocks import AsyncBlock, Block, innermost, joined
from .transaction_bounds import TransactionTimeout, check

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
        self._savepoint, self._durable = savepoint, durable
        self._open: AsyncBlock | None = None
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
        block, self._open = cast("AsyncBlock", self._open), None
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
        pauses_s = self._pauses_s(is_joining=joined(self._using, innermost.get()) is not None)
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

    def _block(self, deadline: float | None) -> Block:
        atomic = mongo.atomic(self._using, savepoint=self._savepoint, durable=self._durable)
        return Block(self._using, atomic, self._isolation, deadline)

    def _async_block(self, deadline: float | None) -> AsyncBlock:
        return AsyncBlock(self._block(deadline), innermost.get(), deadline)

    def _deadline(self) -> float | None:
        return None if self._timeout_s is None else time.monotonic() + self._timeout_s

    def _pauses_s(self, *, is_joining: bool) -> list[float]:
        """The pause before each further run, the next one last. None when joining: the outermost block is what failed."""
        retries = conf().TRANSACTION_RETRIES if self._retry is None else self._retry
        return [] if is_joining else _growing_pauses_s(retries)

    def _refuse_retry(self) -> None:
        if self._retry:
            raise TypeError(
                "a block cannot be run again, only a function: use @db.transaction(retry=…) as a decorator, or "
                "db.run_in_transaction(function, …, retry=…)"
            )


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


def again_after_conflicts(work: Callable[[], T], alias: str, tries: int = 5) -> T:
    """work(), which is a transaction of its own, again after a conflict; inside a transaction once: that one decides."""
    pauses_s = _growing_pauses_s(0 if mongo.is_in_block(alias) else tries)
    while True:
        try:
            return work()
        except DatabaseError as error:
            if not pauses_s or not is_transient(error):
                raise
        time.sleep(pauses_s.pop())


def _growing_pauses_s(retries: int) -> list[float]:
    doubling = (min(_FIRST_PAUSE_S * 2**n, _LONGEST_PAUSE_S) for n in range(retries))
    # Jitter, so that two transactions that deadlocked do not meet again.
    return [longest * random.uniform(0.5, 1.0) for longest in doubling][::-1]  # noqa: S311


def _next_pause(pauses_s: list[float], deadline: float | None, error: BaseException) -> float:
    pause_s = pauses_s.pop()
    if deadline is not None and time.monotonic() + pause_s >= deadline:
        raise TransactionTimeout("no further run fits into the transaction's timeout_s") from error
    return pause_s


def is_transient(error: BaseException) -> bool:
    """Whether the same transaction may succeed when it is run again: deadlock, serialization failure, lock timeout."""
    if isinstance(error, TransactionTimeout):
        return False
    cause = error.__cause__ or error
    if getattr(cause, "sqlstate", None) in _POSTGRESQL or mongo.is_transient(cause):
        return True
    if isinstance(cause, sqlite3.Error):
        return (getattr(cause, "sqlite_errorcode", 0) & 0xFF) in _SQLITE  # the low byte is the primary code
    return type(cause).__module__.startswith("MySQLdb") and bool(cause.args) and cause.args[0] in _MYSQL
