"""A private PostgreSQL or MariaDB that can be stopped, killed and started again, on the same port with the same data."""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests import servers
from tests.drills.outcome import Broken
from tests.drills.processes import children_of

ENGINES = ("postgresql", "mariadb")
_WAIT_S = 60.0


class Server:
    def __init__(self, kind: str, url: str) -> None:
        self.kind, self.url = kind, url
        self.port = urlsplit(url).port or 0
        self.pid = self._found()
        self._command = Path(f"/proc/{self.pid}/cmdline").read_text().rstrip("\0").split("\0")
        self._user = Path(f"/proc/{self.pid}").stat().st_uid
        self._process: subprocess.Popen[bytes] | None = None

    def on(self, url: str) -> Server:
        """The same one, asked about another of its databases."""
        other = copy.copy(self)
        other.url = url
        return other

    def ask(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows, if there are any. Raises the driver's errors."""
        with (
            contextlib.closing(self.connect()) as connection,
            contextlib.closing(connection.cursor()) as cursor,
        ):
            cursor.execute(sql, parameters or None)
            return list(cursor.fetchall()) if cursor.description else []

    def connect(self) -> Any:
        parts = urlsplit(self.url)
        name = parts.path.lstrip("/")
        if self.kind == "postgresql":
            import psycopg

            return psycopg.connect(self.url, autocommit=True, connect_timeout=5)
        import MySQLdb

        return MySQLdb.connect(
            host="127.0.0.1",
            port=self.port,
            user=parts.username,
            database=name,
            connect_timeout=5,
            autocommit=True,
        )

    def answers(self) -> bool:
        try:
            return bool(self.ask("SELECT 1"))
        except Exception:
            return False

    def stop(self, how: signal.Signals) -> None:
        """Until the process is gone. SIGTERM: in order, without waiting for clients, as service managers do it."""
        in_order = signal.SIGINT if self.kind == "postgresql" else signal.SIGTERM
        os.kill(self.pid, in_order if how == signal.SIGTERM else how)
        deadline = time.monotonic() + _WAIT_S
        while not self._is_gone():
            if time.monotonic() > deadline:
                raise Broken(f"{self.kind} did not stop")
            time.sleep(0.005)

    def start(self) -> float:
        """The moment (monotonic) at which it answers a client again."""
        self._launch()
        deadline = time.monotonic() + _WAIT_S
        while not self.answers():
            if time.monotonic() > deadline:
                raise Broken(f"{self.kind} did not start again")
            if self._process is not None and self._process.poll() is not None:
                time.sleep(
                    0.1
                )  # after kill -9 PostgreSQL refuses until the last of its processes has noticed
                self._launch()
            time.sleep(0.01)
        return time.monotonic()

    def end(self) -> None:
        """What we have started again; the first one is stopped by whoever has started it."""
        if self._process is not None and self._process.poll() is None:
            self.stop(signal.SIGTERM)
            self._process.wait()

    def _launch(self) -> None:
        self._process = subprocess.Popen(
            self._command, user=self._user, group=self._group(), extra_groups=[], start_new_session=True, cwd="/",
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.pid = self._process.pid

    def _group(self) -> int:
        return (
            Path(f"/proc/{os.getpid()}").stat().st_gid if self._user == os.getuid() else _group_of(self._user)
        )

    def _is_gone(self) -> bool:
        if self._process is not None:
            return self._process.poll() is not None
        # A zombie: its parent, which is not this class, reads its exit code later.
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return True

    def _found(self) -> int:
        """tests.servers has started it from this process a moment ago."""
        for pid in children_of(os.getpid()):
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            if str(self.port) in words or f"--port={self.port}" in words:
                return pid
        raise Broken(f"the {self.kind} on port {self.port} is not a child of this process")


def _group_of(user: int) -> int:
    import pwd

    return pwd.getpwuid(user).pw_gid


@contextlib.contextmanager
def server(kind: str) -> Iterator[Server]:
    started = servers.postgresql() if kind == "postgresql" else servers.mariadb()
    with started as url:
        one = Server(kind, url)
        try:
            yield one
        finally:
            one.end()


def connections_of(pid: int, port: int) -> int:
    """Open ones of this process to 127.0.0.1:port. No server is asked: it may be down."""
    mine = set()
    with contextlib.suppress(OSError):
        for number in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                mine.add(os.readlink(number))
    found = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        is_open, to = fields[3] == "01", int(fields[2].partition(":")[2], 16)
        found += is_open and to == port and f"socket:[{fields[9]}]" in mine
    return found
