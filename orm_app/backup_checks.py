"""A backup verified in a process of its own, for callers that cannot wait. Its output file is locked while it runs.

.NAME.check       what `manage.py database verify` said
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from . import backups
from .backups import BackupFailed

_LONGEST = 300  # characters of an error


@dataclass(frozen=True, slots=True)
class Check:
    """The last one of a backup. error: "" while it runs, and when it found nothing."""

    is_running: bool
    error: str


def start(path: Path) -> int:
    """The pid. Raises BackupFailed when it cannot begin, or is running already."""
    manage = Path(settings.BASE_DIR) / "manage.py"
    command = [sys.executable, str(manage), "database", "verify", "--json", str(path)]
    out = _opened(path)
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd=manage.parent,
            env=backups.environment(),
        )  # fmt: skip
    except OSError as error:
        raise BackupFailed(f"the verification cannot begin: {error.strerror}") from error
    finally:
        os.close(out)  # the child has it, and with it the lock
    _started.append(child)
    return child.pid


def last(path: Path) -> Check | None:
    _started[:] = [child for child in _started if child.poll() is None]  # the others are reaped by this
    try:
        with _output(path).open(errors="replace") as file:
            if _is_locked(file.fileno()):
                return Check(is_running=True, error="")
            return Check(is_running=False, error=_error(file.read()))
    except FileNotFoundError:
        return None


def is_running(path: Path) -> bool:
    found = last(path)
    return found is not None and found.is_running


def forget(path: Path) -> None:
    _output(path).unlink(missing_ok=True)


_started: list[subprocess.Popen[bytes]] = []  # by this process


def _output(path: Path) -> Path:
    return path.with_name(f".{path.name}.check")


def _opened(path: Path) -> int:
    try:
        file = os.open(_output(path), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise BackupFailed(f"{path.parent}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(file, 0)
    except BlockingIOError:
        os.close(file)
        raise BackupFailed(f"{path.name} is being verified already") from None
    return file


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _error(said: str) -> str:
    """The command prints one document, with an `error` when it failed; logs may stand around it."""
    lines = said.strip().splitlines()
    for line in reversed(lines):
        if line.startswith("{"):
            with suppress(ValueError):
                return str(json.loads(line).get("error") or "")[:_LONGEST]
    return (lines[-1] if lines else "it was stopped before it ended")[:_LONGEST]
