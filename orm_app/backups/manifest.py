"""What a backup says about itself: where it is from, its bytes, and what each of its tables held in that moment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

FORMAT = 1
RESTORED, ARCHIVE, UNVERIFIED = "restored", "archive", "no"  # how a backup was verified
_SHOWN = 5  # differences that a message names


class BackupFailed(Exception):
    """A backup, a verification or a restore that did not work. hint: the way out, where there is one."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Table:
    """checksum: of all rows together, whatever their order."""

    name: str
    rows: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Contents:
    """sequences: the last value by name. others: "view:name", "trigger:name" … that exist."""

    tables: tuple[Table, ...] = ()
    sequences: Mapping[str, int] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)


@dataclass(frozen=True, slots=True)
class Manifest:
    """contents: of the dump's own snapshot; None where the account could not read one."""

    alias: str
    engine: str
    database: str
    account: str
    server_version: str
    tool: str
    software: Mapping[str, str]
    taken_at: str  # ISO 8601, UTC
    took_s: float
    size_bytes: int
    sha256: str
    contents: Contents | None
    migrations: tuple[str, ...]  # applied, "app.name"
    notes: tuple[str, ...] = ()
    verified: str = UNVERIFIED
    format: int = FORMAT

    def with_verified(self, how: str, *notes: str) -> Manifest:
        return replace(self, verified=how, notes=(*self.notes, *(n for n in notes if n not in self.notes)))

    def with_contents(self, contents: Contents) -> Manifest:
        return replace(self, contents=contents)

    def text(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n"


def read(text: str) -> Manifest:
    """Raises BackupFailed."""
    try:
        found = json.loads(text)
        if found["format"] > FORMAT:
            raise BackupFailed(
                "the backup was made by a newer version of this platform", "Update, then try again."
            )
        contents = found["contents"]
        known = {one.name for one in fields(Manifest)}
        given = {name: value for name, value in found.items() if name in known}
        given["migrations"], given["notes"] = tuple(found["migrations"]), tuple(found["notes"])
        given["contents"] = None if contents is None else _contents(contents)
        return Manifest(**given)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackupFailed(f"the manifest cannot be read ({type(error).__name__}: {error})") from error


def _contents(found: Mapping[str, Any]) -> Contents:
    return Contents(
        tuple(Table(**one) for one in found["tables"]), dict(found["sequences"]), tuple(found["others"])
    )


def differences(expected: Contents, found: Contents) -> list[str]:
    """What is not as the manifest says. A sequence may be ahead: it moves outside of transactions."""
    there = {table.name: table for table in found.tables}
    said = [_difference(table, there.pop(table.name, None)) for table in expected.tables]
    said += [f"{name} is not in the backup's list" for name in there]
    for name, value in expected.sequences.items():
        if name not in found.sequences:
            said.append(f"sequence {name} is missing")
        elif found.sequences[name] < value:
            said.append(f"sequence {name} stands at {found.sequences[name]}, not {value}")
    said += [
        f"{name.replace(':', ' ', 1)} is missing" for name in expected.others if name not in found.others
    ]
    return [text for text in said if text]


def refuse(different: Sequence[str], where: str) -> None:
    """Raises BackupFailed when there is a difference."""
    if different:
        more = f" and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
        raise BackupFailed(f"{where} is not what the manifest says: {'; '.join(different[:_SHOWN])}{more}")


def _difference(expected: Table, found: Table | None) -> str:
    if found is None:
        return f"{expected.name} is missing"
    if found.rows != expected.rows:
        return f"{expected.name} has {found.rows:,} rows, not {expected.rows:,}"
    return "" if found.checksum == expected.checksum else f"the rows of {expected.name} are others"
