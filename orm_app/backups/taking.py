"""Taking a backup: dumped, verified, given its name; then what is older than wanted goes."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import django
from django.db import DatabaseError
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from orm_app.conf import conf
from orm_app.slow.capture import ignored

from . import engines, files, history, listing, verifying
from .dumps import Dumped
from .files import Progress
from .listing import Backup
from .manifest import UNVERIFIED, BackupFailed, Manifest


@ignored()
def take(
    alias: str = "default",
    *,
    output: Path | None = None,
    keep: int | None = None,
    is_verified: bool = True,
    actor: Any,
    source: str,
    progress: Progress | None = None,
) -> Backup:
    """output: another place than BACKUP_DIR. keep: how many of the alias stay in BACKUP_DIR; 0 all. Raises BackupFailed."""
    connection, started = engines.connection(alias), timezone.now()
    engine = engines.of(connection)
    with _database_errors():
        path = _path(output, alias, started, engine.SUFFIX)
        files.forget_failed(path.parent, alias)
        with _reported(path, alias, started, progress) as told:
            made = _make(connection, engine, path, started, is_verified, told)
    history.record("database.backup", alias, actor=actor, source=source, after=_summary(path, made))
    if output is None:
        prune(alias, conf().BACKUP_KEEP if keep is None else keep, actor=actor, source=source)
    return listing.of(path)


def prune(alias: str, keep: int, *, actor: Any, source: str) -> list[str]:
    """The names that went: the oldest of the alias beyond `keep`; 0 keeps all."""
    whole = [one for one in listing.every() if one.alias == alias and one.state == listing.OK]
    gone = whole[keep:] if keep > 0 else []
    for one in gone:
        files.remove(one.path)
    if gone:
        names = [one.name for one in gone]
        history.record("database.backup_prune", alias, actor=actor, source=source, after={"files": names})
    return [one.name for one in gone]


def _make(
    connection: Any, engine: Any, path: Path, started: datetime, is_verified: bool, progress: Progress
) -> Manifest:
    with files.whole(path) as part:
        dumped = engine.dump(connection, part, progress)
        known = _manifest(connection, engine, dumped, started)
        if is_verified:
            known = verifying.verified(connection, part, known, progress)
        # The manifest first: a dump without one would look like no backup at all.
        files.write_manifest(path, known)
    return known


def _manifest(connection: Any, engine: Any, dumped: Dumped, started: datetime) -> Manifest:
    settings = connection.settings_dict
    return Manifest(
        alias=connection.alias,
        engine=connection.vendor,
        database=str(settings["NAME"]),
        account=engine.account(connection),
        server_version=engine.version(connection),
        tool=dumped.tool,
        software={"django": django.get_version(), "python": platform.python_version()},
        taken_at=started.isoformat(timespec="seconds"),
        took_s=round((timezone.now() - started).total_seconds(), 3),
        size_bytes=dumped.size_bytes,
        sha256=dumped.sha256,
        contents=dumped.contents,
        migrations=_applied(connection),
        notes=dumped.notes,
        verified=UNVERIFIED,
    )


def _applied(connection: Any) -> tuple[str, ...]:
    return tuple(sorted(".".join(key) for key in MigrationRecorder(connection).applied_migrations()))


def _path(output: Path | None, alias: str, started: datetime, suffix: str) -> Path:
    if output is not None:
        path = output.expanduser().absolute()
        if path.is_dir():
            raise BackupFailed(f"{path} is a directory", "Give the file's name.")
        if not path.parent.is_dir():
            raise BackupFailed(f"{path.parent} does not exist")
        if path.exists() or files.manifest_path(path).exists():
            raise BackupFailed(f"{path} exists already", "Give another name, or remove it first.")
        return path
    where, begin = files.directory(), f"{alias}-{started:%Y%m%dT%H%M%SZ}"
    names = (f"{begin}{f'-{number}' if number else ''}.{suffix}" for number in range(100))
    free = (where / name for name in names)
    return next(path for path in free if not (path.exists() or files.status_path(path).exists()))


@contextmanager
def _reported(path: Path, alias: str, started: datetime, progress: Progress | None) -> Iterator[Progress]:
    """The status file says how far it is, and why it failed."""
    try:
        reporter = files.Reporter(path, alias, started.isoformat(timespec="seconds"), time.monotonic)
    except OSError as error:
        raise BackupFailed(f"{path.parent}: {error.strerror}") from error

    def told(step: str, done: int, total: int | None) -> None:
        reporter.progress(step, done, total)
        if progress:
            progress(step, done, total)

    try:
        yield told
    except BaseException as error:
        files.manifest_path(path).unlink(missing_ok=True)
        is_error = isinstance(error, Exception)
        reporter.failed(str(error) or type(error).__name__ if is_error else "it was interrupted")
        raise
    reporter.succeeded()


@contextmanager
def _database_errors() -> Iterator[None]:
    try:
        yield
    except DatabaseError as error:
        raise BackupFailed(f"database: {str(error).strip().splitlines()[0]}") from error


def _summary(path: Path, made: Manifest) -> dict[str, Any]:
    return {
        "file": str(path), "size_bytes": made.size_bytes, "sha256": made.sha256, "verified": made.verified,
        "rows": made.contents.rows if made.contents else None, "took_s": made.took_s,
    }  # fmt: skip
