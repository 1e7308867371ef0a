"""Whether a backup can be restored: by restoring it into a scratch database and comparing it with its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.db import DatabaseError

from orm_app.slow.capture import ignored

from . import engines, files, listing
from .files import Progress
from .listing import Backup
from .manifest import BackupFailed, Manifest


def _quiet(step: str, done: int, total: int | None) -> None:
    """For a caller that shows no progress."""


@ignored()
def verify(path: Path, *, alias: str | None = None, progress: Progress | None = None) -> Backup:
    """alias: on whose server (default: the backup's own). The manifest says then how it was done. Raises BackupFailed."""
    path = path.absolute()
    known = files.intact(path, progress)
    connection = engines.connection(alias or known.alias)
    if connection.vendor != known.engine:
        raise BackupFailed(
            f"{path.name} is of {known.engine}, and {connection.alias} is {connection.vendor}",
            "Name a database of that engine with --database.",
        )
    try:
        found = verified(connection, path, known, progress or _quiet)
    except DatabaseError as error:
        raise BackupFailed(f"database: {str(error).strip().splitlines()[0]}") from error
    if found != known:
        files.write_manifest(path, found)
    return listing.of(path)


def verified(connection: Any, path: Path, known: Manifest, progress: Progress) -> Manifest:
    """The manifest with what was found. Raises BackupFailed."""
    how, note, contents = engines.of(connection).check(connection, path, known, progress)
    if known.contents is None and contents is not None:
        note = (
            "the manifest's rows are those of the restored copy: the dump's own moment could not be counted"
        )
    found = known.with_verified(how, *([note] if note else []))
    return found if found.contents is not None or contents is None else found.with_contents(contents)
