"""What the engines give back: PostgreSQL, MySQL and SQLite have a module each, with the same functions."""

from __future__ import annotations

from dataclasses import dataclass

from .manifest import Contents


@dataclass(frozen=True, slots=True)
class Dumped:
    tool: str
    sha256: str
    size_bytes: int
    contents: Contents | None  # of the dump's own snapshot
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replaced:
    contents: Contents
    notes: tuple[str, ...] = ()
