"""Threads in which a file cache works for async code, so that the loop never waits for a disk or another process."""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_THREADS = 8  # more would wait for the GIL and for each other's transactions
_threads: ThreadPoolExecutor | None = None
T = TypeVar("T")


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """A caller that is cancelled goes on at once; what has begun by then is done to its end all the same."""
    global _threads
    if _threads is None:
        _threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="file-cache")
    run = contextvars.copy_context().run
    return await asyncio.get_running_loop().run_in_executor(_threads, run, work, *arguments)


def _forget_threads() -> None:
    global _threads
    _threads = None


os.register_at_fork(after_in_child=_forget_threads)
