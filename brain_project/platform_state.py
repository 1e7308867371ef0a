"""`.brain/up.json` and `.brain/up.lock`: who runs the platform here, and what a script needs to use it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


class AlreadyRunning(Exception):
    """Another `up` holds the lock. `pid` is its process."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"already running: pid {pid}")
        self.pid = pid


@contextlib.contextmanager
def lock(data_dir: Path) -> Iterator[IO[str]]:
    """Held while the platform runs; the kernel drops it with the process. Yields its file. Raises AlreadyRunning."""
    with open(data_dir / "up.lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise AlreadyRunning(_pid_in(data_dir)) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file


def running_pid(data_dir: Path) -> int | None:
    """The pid of the `up` that runs on this data directory, or None."""
    try:
        with open(data_dir / "up.lock", "r+") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except OSError:
        return _pid_in(data_dir)
    return None


def _pid_in(data_dir: Path) -> int:
    text = (data_dir / "up.lock").read_text().strip()
    return int(text) if text.isdigit() else 0


def read(data_dir: Path) -> dict[str, Any]:
    """up.json as it was last written, {} when there is none or it is not JSON."""
    try:
        state = json.loads((data_dir / "up.json").read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write(data_dir: Path, state: dict[str, Any]) -> None:
    """Replace up.json at once (0600): a reader sees the old text or the new one, never half."""
    path = data_dir / "up.json"
    fresh = path.with_suffix(f".json.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as file:
        json.dump(state, file, indent=2)
        file.write("\n")
    fresh.replace(path)


def stop(data_dir: Path, *, timeout_s: float) -> int | None:
    """Ask the running `up` to stop and wait for it. Its pid, or None when none ran. Raises TimeoutError."""
    pid = running_pid(data_dir)
    if not pid:
        return None
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while running_pid(data_dir) == pid:
        if time.monotonic() > deadline:
            raise TimeoutError(f"pid {pid} did not stop in {timeout_s:.0f} s")
        time.sleep(0.05)
    return pid
