"""The open blocks of `db.transaction`: one in a thread, and the async one that has a thread of its own; on_commit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Any, NoReturn, cast

import structlog
from asgiref.sync import ThreadSensitiveContext, async_to_sync, iscoroutinefunction, sync_to_async
from django.db import Error, InterfaceError, connections
from django.db.transaction import Atomic, get_connection
from django.db.transaction import on_commit as django_on_commit

from .awaiting import Pending, is_in_loop, to_the_end
from .transaction_bounds import Bounds, TransactionTimeout

log = structlog.get_logger(__name__)

Hook = Callable[[], Any]


class Block:
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
        failed = self._failed(bounds) if kind is None else None
        bounds.ending()
        try:
            if failed is None:
                self._atomic.__exit__(kind, error, trace)
            else:
                self._atomic.__exit__(type(failed), failed, None)
        finally:
            bounds.ended()
        if failed is not None:
            raise failed

    def _failed(self, bounds: Bounds) -> Error | None:
        """Why a block that ends without an exception cannot commit. Django's atomic says nothing about the second."""
        if bounds.is_late:
            return bounds.timeout()
        if get_connection(self.alias).closed_in_transaction:
            return InterfaceError("the connection was closed within the transaction: nothing of it is stored")
        return None


class AsyncBlock:
    """One open `async with`. Its lock makes sibling tasks take turns: savepoints of a connection cannot interleave."""

    def __init__(self, block: Block, outer: AsyncBlock | None, deadline: float | None) -> None:
        self.alias = block.alias
        self.outer = outer
        self.hooks: list[tuple[Hook, bool]] = []
        self._block = block
        self._begun = False
        self._is_committed = False
        self._has_run_hooks = False
        self.is_over = False
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
            if _is_exhausted(self.alias):
                await to_the_end(sync_to_async(_give_back_idle)(self.alias))
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="transaction")
            self._thread = ThreadSensitiveContext(executor=self._executor)
            await self._thread.__aenter__()
        innermost.set(self)
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
            await to_the_end(sync_to_async(self._end)(kind, error, trace))
            if kind is None:
                await self._run_hooks()
        except asyncio.CancelledError:
            if self._is_committed and not self._has_run_hooks:
                # It met the commit. The rows are there, and so must be what was to follow them.
                await self._run_hooks(may_raise=False)
            raise
        finally:
            await self._give_back()

    def _begin(self) -> None:
        self._block.__enter__()
        self._begun = True

    def _end(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._block.__exit__(kind, error, trace)
        self._is_committed = kind is None

    async def _give_back(self) -> None:
        self.is_over = True
        if self.outer is not None:
            innermost.set(self.outer)
            self.outer._lock.release()
            return
        try:
            await to_the_end(sync_to_async(connections.close_all)())
        finally:
            innermost.set(None)
            # A generator that was left with its block open is closed in another context, which is not ours to restore.
            with suppress(ValueError):
                await self._thread.__aexit__(None, None, None)
            self._executor.shutdown(wait=False)

    async def _run_hooks(self, *, may_raise: bool = True) -> None:
        """After the commit; a block inside another hands them on to it."""
        self._has_run_hooks = True
        around = joined(self.alias, self.outer)
        if around is not None:
            around.hooks += self.hooks
            return
        for hook, is_robust in self.hooks:
            try:
                await (hook() if iscoroutinefunction(hook) else sync_to_async(hook)())
            except Exception:
                if may_raise and not is_robust:
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


innermost: ContextVar[AsyncBlock | None] = ContextVar("transaction", default=None)


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
    block = joined(alias, innermost.get())
    if block is not None:
        block.hooks.append((function, robust))
    elif iscoroutinefunction(function):
        await function()
    else:
        await sync_to_async(django_on_commit)(function, alias, robust)


def joined(alias: str, at: AsyncBlock | None) -> AsyncBlock | None:
    """The nearest open block of this database, from `at` outwards."""
    while at is not None and (at.alias != alias or at.is_over):
        at = at.outer
    return at


def _is_exhausted(alias: str) -> bool:
    """Whether all connections of the alias's pool are lent."""
    pool = getattr(connections[alias], "pool", None)
    if pool is None:
        return False
    found: dict[str, int] = pool.get_stats()
    return found["pool_available"] == 0 and found["pool_size"] >= found["pool_max"]


def _give_back_idle(alias: str) -> None:
    """The connection that this request's earlier queries left to its thread. When each of the pool's is held by a
    request that waits for its block's, nobody would ever get one."""
    connection = connections[alias]
    if not connection.in_atomic_block:
        connection.close()


def _raise_translated(bounds: Bounds, error: BaseException) -> NoReturn:
    translated = bounds.translated(error)
    if translated is error:
        raise error
    raise translated from error
