"""Rows of a large result, some at a time, in bounded memory on every engine; `for` and `async for`.

Each part is a keyset page of its own, so nothing stays open between two of them: a loop that is left or cancelled
leaves no cursor and no thread behind. (A cursor of MySQL's driver would hold the whole result, one of PostgreSQL's a
connection or a copy on the server.)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation

from . import awaiting

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Position:
    """values: the ordered columns of the last row; left: how many rows may still come, None for all."""

    values: list[Any]
    left: int | None


Fetch = Callable[[Position | None], tuple[list[T], Position | None]]  # None: the first part; no part follows


class Chunks(Generic[T]):
    """Lists of rows. Rows stored behind the position meanwhile are not seen; it is no snapshot outside of a transaction."""

    def __init__(self, fetch: Fetch[T]) -> None:
        self._fetch = fetch

    def __iter__(self) -> Iterator[list[T]]:
        if awaiting.is_in_loop():
            raise SynchronousOnlyOperation("within a running loop write `async for`")
        return self._parts()

    def __aiter__(self) -> AsyncIterator[list[T]]:
        return self._async_parts()

    def _parts(self) -> Iterator[list[T]]:
        rows, position = self._fetch(None)
        while rows:
            yield rows
            if position is None:
                return
            rows, position = self._fetch(position)

    async def _async_parts(self) -> AsyncIterator[list[T]]:
        fetch = sync_to_async(self._fetch)
        # To the end: a cancelled query goes on in its thread, and must not meet the one that rolls back.
        rows, position = await awaiting.to_the_end(fetch(None))
        while rows:
            yield rows
            if position is None:
                return
            rows, position = await awaiting.to_the_end(fetch(position))


class Rows(Generic[T]):
    """The rows themselves."""

    def __init__(self, chunks: Chunks[T]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[T]:
        chunks = iter(self._chunks)
        return (row for rows in chunks for row in rows)

    def __aiter__(self) -> AsyncIterator[T]:
        return self._rows()

    async def _rows(self) -> AsyncIterator[T]:
        async for rows in self._chunks:
            for row in rows:
                yield row
