"""File stores for tests: a clock that stands still, and what must be true of a directory whatever happened in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from cache_app.file import FileStore
from cache_app.file_directory import Directory

START = 1_800_000_000.0
BIG = 40_000  # bytes: a value in a file of its own

Make = Callable[..., FileStore]


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@contextmanager
def making(location: Path, wall: Clock) -> Iterator[Make]:
    """Makes stores in this directory, with the clock if an option does not say otherwise, and closes them in the end."""
    made: list[FileStore] = []

    def make(**options: Any) -> FileStore:
        made.append(FileStore(str(location), **{"wall": wall, **options}))
        return made[-1]

    yield make
    for store in made:
        store.close()


def rows(location: Path, statement: str, *values: Any) -> list[Any]:
    """Straight from the index, past the store."""
    with closing(sqlite3.connect(Directory(str(location)).index(), isolation_level=None)) as connection:
        return connection.execute(statement, values).fetchall()


def files(location: Path) -> set[str]:
    return {path.name for path in (location / "v1").glob("??/*")}


def the_file(location: Path) -> Path:
    """Of the one big value that there is."""
    (found,) = (location / "v1").glob("??/*.value")
    return found


def check(location: Path) -> None:
    """The index is whole, its totals are right, and every file is known to it."""
    assert rows(location, "PRAGMA integrity_check") == [("ok",)]
    assert rows(location, "SELECT entries, size FROM totals") == rows(
        location, "SELECT count(*), coalesce(sum(size), 0) FROM entries"
    )
    named = {file for (file,) in rows(location, "SELECT file FROM entries WHERE file IS NOT NULL")}
    spare = {file for (file,) in rows(location, "SELECT file FROM spare")}
    assert named <= files(location)
    assert {file.removesuffix(".tmp") for file in files(location)} <= named | spare


def contents(store: FileStore) -> dict[str, bytes]:
    keys = list(store.scan("*"))
    return {
        key: value for key, value in zip(keys, store.get_many(keys), strict=True) if isinstance(value, bytes)
    }
