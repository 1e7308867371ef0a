"""The directory of backups: 0700, files 0600 that appear complete or not at all, a manifest and a status beside each.

NAME              the dump
NAME.json         its manifest; a file without one is no backup of ours
.NAME.status      while it is made, locked by the process that makes it, and after it failed
.NAME.part        what is written so far
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orm_app.conf import conf

from .manifest import BackupFailed, Manifest
from .manifest import read as read_manifest

Progress = Callable[
    [str, int, int | None], None
]  # what is done, how far (bytes, pages or tables), of how many

_CHUNK_BYTES = 1 << 20
_NO_SPACE = "Free some space, or set BRAIN['DATABASE']['BACKUP_DIR'] to a larger disk."


@dataclass(frozen=True, slots=True)
class Status:
    """state: "running" or "failed"."""

    name: str
    state: str
    alias: str
    step: str
    done: int
    total: int | None
    started_at: str
    error: str
    pid: int


def directory() -> Path:
    """Raises BackupFailed when it cannot be made."""
    path = Path(conf().BACKUP_DIR).expanduser() if conf().BACKUP_DIR else None
    if path is None:
        raise BackupFailed("there is no directory for backups", "Set BRAIN['DATABASE']['BACKUP_DIR'].")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_uid == os.getuid():
            path.chmod(0o700)
    except OSError as error:
        raise BackupFailed(
            f"{path}: {error.strerror}", "Set BRAIN['DATABASE']['BACKUP_DIR'] to one we may write."
        ) from error
    return path


def manifest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def manifest(path: Path) -> Manifest:
    """Of the backup at `path`. Raises BackupFailed."""
    try:
        return read_manifest(manifest_path(path).read_text())
    except FileNotFoundError:
        raise BackupFailed(
            f"{path} has no manifest {manifest_path(path).name}",
            "It stands beside the backup: copy both. Without it restore with the engine's own tool.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BackupFailed(f"{manifest_path(path)}: {error}") from error


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to (0600), which becomes `path` at the end of the block, and is gone when it raises."""
    part = part_path(path)
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise BackupFailed(f"{path.name} is being written by another process") from None
    except OSError as error:
        raise BackupFailed(f"{path}: {error.strerror}") from error
    try:
        yield part
        _sync(part)
        os.replace(part, path)
        _sync(path.parent)
    except OSError as error:
        raise BackupFailed(f"{path}: {error.strerror or error}", _NO_SPACE) from error
    finally:
        part.unlink(missing_ok=True)


def write_manifest(path: Path, found: Manifest) -> None:
    with whole(manifest_path(path)) as part:
        part.write_text(found.text())


def part_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def status_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.status")


def digest(path: Path, progress: Progress | None = None) -> tuple[str, int]:
    """sha256 and bytes. Raises BackupFailed when it cannot be read."""
    found, size = hashlib.sha256(), 0
    try:
        total = path.stat().st_size
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                found.update(chunk)
                size += len(chunk)
                if progress:
                    progress("reading the file", size, total)
    except OSError as error:
        raise BackupFailed(f"{path}: {error.strerror}") from error
    return found.hexdigest(), size


def intact(path: Path, progress: Progress | None = None) -> Manifest:
    """The manifest of a file whose bytes are those that were written. Raises BackupFailed."""
    if not path.is_file():
        raise BackupFailed(f"{path} does not exist", "`manage.py database backups` lists them.")
    known = manifest(path)
    sha256, size = digest(path, progress)
    if size != known.size_bytes:
        raise BackupFailed(f"{path.name} has {size:,} bytes, not {known.size_bytes:,}: it was cut or changed")
    if sha256 != known.sha256:
        raise BackupFailed(f"{path.name} is damaged: its SHA-256 is not the manifest's")
    return known


def remove(path: Path) -> None:
    # The manifest last: what is left of a removal that was killed is found again and removed.
    path.unlink(missing_ok=True)
    manifest_path(path).unlink(missing_ok=True)


class Reporter:
    """Keeps the status file while a backup is made. Its lock goes with the process, however that ends."""

    _WRITE_EVERY_S = 0.5

    def __init__(self, path: Path, alias: str, started_at: str, now: Callable[[], float]) -> None:
        self._path, self._now, self._next = status_path(path), now, 0.0
        self._said: dict[str, Any] = {
            "alias": alias, "started_at": started_at, "pid": os.getpid(), "step": "beginning", "done": 0,
            "total": None, "error": "",
        }  # fmt: skip
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._write()

    def progress(self, step: str, done: int, total: int | None) -> None:
        is_new = step != self._said["step"]
        self._said |= {"step": step, "done": done, "total": total}
        if is_new or self._now() >= self._next:
            self._write()

    def failed(self, error: str) -> None:
        self._said["error"] = error
        self._write()
        os.close(self._file)

    def succeeded(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._file)

    def _write(self) -> None:
        self._next = self._now() + self._WRITE_EVERY_S
        text = json.dumps(self._said).encode()
        with contextlib.suppress(OSError):  # a full disk must not hide what filled it
            os.pwrite(self._file, text, 0)
            os.ftruncate(self._file, len(text))


def statuses(where: Path) -> list[Status]:
    return [found for path in sorted(where.glob(".*.status")) if (found := _status(path)) is not None]


def _status(path: Path) -> Status | None:
    try:
        with path.open() as file:
            is_running = _is_locked(file.fileno())
            said = json.loads(file.read() or "{}")
    except (OSError, ValueError):
        return None
    error = said.get("error") or ("" if is_running else "its process ended before the backup did")
    return Status(
        name=path.name[1 : -len(".status")],
        state="running" if is_running else "failed",
        alias=said.get("alias", ""),
        step=said.get("step", ""),
        done=said.get("done", 0),
        total=said.get("total"),
        started_at=said.get("started_at", ""),
        error=error,
        pid=said.get("pid", 0),
    )


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def log_path(where: Path, alias: str) -> Path:
    """What a detached backup says; locked while it lives."""
    return where / f".{alias}.log"


def beginning(where: Path) -> list[str]:
    """Aliases whose detached process lives."""
    found = []
    for path in where.glob(".*.log"):
        with contextlib.suppress(OSError), path.open() as file:
            if _is_locked(file.fileno()):
                found.append(path.name[1 : -len(".log")])
    return found


def forget_failed(where: Path, alias: str) -> None:
    """What failed or killed backups of `alias` left behind."""
    for status in statuses(where):
        if status.alias == alias and status.state == "failed":
            path = where / status.name
            part_path(path).unlink(missing_ok=True)
            for journal in ("-journal", "-wal", "-shm"):  # SQLite's beside its half-written copy
                part_path(path).with_name(part_path(path).name + journal).unlink(missing_ok=True)
            if not path.exists():
                manifest_path(path).unlink(missing_ok=True)
            status_path(path).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
