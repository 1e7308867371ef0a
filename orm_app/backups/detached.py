"""A backup in a process of its own, for a caller that cannot wait: a request of the admin."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from django.conf import settings

from . import clients, engines, files, listing
from .manifest import BackupFailed


def start(alias: str, *, by: str, keep: int | None = None, is_verified: bool = True) -> int:
    """The pid of `manage.py database backup --json`; `every()` shows it as running, then as done or failed.

    by: whom the audit log names. It goes on when this process ends. Raises BackupFailed when it cannot begin.
    """
    engines.of(engines.connection(alias))
    if any(one.alias == alias and one.state == listing.RUNNING for one in listing.every()):
        raise BackupFailed(f"a backup of {alias} is running already")
    command = [sys.executable, str(_manage_py()), "database", "backup", "--json", "--database", alias]
    command += [f"--by={by}"] + ([f"--keep={keep}"] if keep is not None else [])
    command += [] if is_verified else ["--no-verify"]
    _reap()
    file = os.open(files.log_path(files.directory(), alias), os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(file, "wb") as out:
        # The child has the file, and with it the lock, for as long as it lives.
        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupFailed(f"a backup of {alias} is running already") from None
        out.truncate()
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd=_manage_py().parent,
            env=clients.environment(),
        )  # fmt: skip
    _started.append(child)
    return child.pid


_started: list[subprocess.Popen[bytes]] = []  # by this process


def _reap() -> None:
    """Of what is in a list, Popen collects nothing by itself: the ended ones would stay zombies."""
    _started[:] = [child for child in _started if child.poll() is None]


def log(alias: str) -> str:
    """What the last detached backup of the alias said."""
    path = files.log_path(files.directory(), alias)
    return path.read_text(errors="replace") if path.exists() else ""


def _manage_py() -> Path:
    return Path(settings.BASE_DIR) / "manage.py"
