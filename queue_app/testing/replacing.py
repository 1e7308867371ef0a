"""What the kit puts into the place of something else for the length of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.db.backends.utils import CursorWrapper

_NONE = object()


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name` is `value` in the block, and then what it was: inherited again, where it was that."""
    before = vars(owner).get(name, _NONE)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is _NONE:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


@contextmanager
def statements_through(wrapper: Callable[..., Any], alias: str | None = None) -> Iterator[None]:
    """Each statement goes through `wrapper`, which is as one of Django's `execute_wrapper`: those of all threads, on whatever
    connections they have. alias: of this database alone.

    Not by the connections' own lists: a coroutine's statements are another thread's, which had its connection before.
    """
    execute = CursorWrapper._execute_with_wrappers

    def through(cursor: Any, sql: Any, params: Any, many: bool, executor: Callable[..., Any]) -> Any:
        if alias in (None, cursor.db.alias):
            executor = partial(wrapper, executor)
        return execute(cursor, sql, params, many, executor)

    with replaced(CursorWrapper, "_execute_with_wrappers", through):
        yield
