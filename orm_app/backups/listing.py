"""The backups that there are, those that are being made, and those that failed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import files
from .manifest import BackupFailed

OK, RUNNING, FAILED = "ok", "running", "failed"


@dataclass(frozen=True, slots=True)
class Backup:
    """state: "ok", "running" or "failed". verified: "restored", "archive" (only read) or "no". detail: why, how far."""

    name: str
    path: Path
    state: str
    alias: str
    engine: str
    database: str
    taken_at: str  # ISO 8601, UTC
    took_s: float | None
    size_bytes: int | None
    tables: int | None
    rows: int | None
    verified: str
    server_version: str
    detail: str

    def as_dict(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return found | {"path": str(self.path)}


def every() -> list[Backup]:
    """Of BACKUP_DIR, the newest first. Raises BackupFailed when there is no such directory."""
    where = files.directory()
    unfinished = files.statuses(where)
    # A process that was killed between its last two steps has left a whole backup.
    unfinished = [one for one in unfinished if one.state == RUNNING or not (where / one.name).exists()]
    names = {one.name for one in unfinished}
    found = [of(path.with_suffix("")) for path in where.glob("*.json") if path.stem not in names]
    found += [_unfinished(where, one) for one in unfinished]
    begun = [_beginning(where, alias) for alias in files.beginning(where)]
    found += [one for one in begun if not any(_is_of(one, other) for other in found)]
    return sorted(found, key=lambda one: (one.taken_at, one.name), reverse=True)


def of(path: Path) -> Backup:
    try:
        known = files.manifest(path)
    except BackupFailed as error:
        return _broken(path, str(error))
    if not path.exists():
        return _broken(path, "the manifest is here, the file is not")
    return Backup(
        name=path.name,
        path=path,
        state=OK,
        alias=known.alias,
        engine=known.engine,
        database=known.database,
        taken_at=known.taken_at,
        took_s=known.took_s,
        size_bytes=known.size_bytes,
        tables=len(known.contents.tables) if known.contents else None,
        rows=known.contents.rows if known.contents else None,
        verified=known.verified,
        server_version=known.server_version,
        detail="; ".join(known.notes),
    )


def _is_of(begun: Backup, other: Backup) -> bool:
    """Whether `other` is what that process makes, or has made already."""
    if other.alias != begun.alias:
        return False
    return other.state == RUNNING or (other.state == OK and other.taken_at >= begun.taken_at)


def _beginning(where: Path, alias: str) -> Backup:
    """Its process has been started and has not come to the dump yet."""
    name = f"{alias}-…"
    began = datetime.fromtimestamp(files.log_path(where, alias).stat().st_mtime, UTC).isoformat(
        timespec="seconds"
    )
    return Backup(
        name, where / name, RUNNING, alias, "", "", began, None, None, None, None, "no", "", "beginning"
    )


def _broken(path: Path, detail: str) -> Backup:
    return Backup(path.name, path, FAILED, "", "", "", "", None, None, None, None, "no", "", detail)


def _unfinished(where: Path, status: files.Status) -> Backup:
    how_far = f" {100 * status.done // status.total} %" if status.total else ""
    detail = status.error if status.state == FAILED else f"{status.step}{how_far}"
    path = where / status.name
    part = files.part_path(path)
    size = part.stat().st_size if part.exists() else None
    return Backup(
        status.name,
        path,
        status.state,
        status.alias,
        "",
        "",
        status.started_at,
        None,
        size,
        None,
        None,
        "no",
        "",
        detail,
    )
