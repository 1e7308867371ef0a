"""The private servers of a drill, with the ways to hurt them. Each is ours alone and is gone when its block ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import redis

from tests import servers


class Valkey:
    """On a port of its own, which it keeps when it is started again; with an AOF."""

    def __init__(self, home: Path) -> None:
        self._data = home
        self._stack = contextlib.ExitStack()
        self.port = servers.free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=5)

    def start(self) -> None:
        self._data.mkdir(exist_ok=True)
        self._stack.enter_context(servers.valkey(port=self.port, data_dir=self._data))
        with self.client as client:
            self.pid = int(client.info("server")["process_id"])

    def stop(self) -> None:
        """In order: what it was told is in its AOF."""
        self._stack.close()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self._stack.close()

    def forget(self) -> None:
        """Stopped, it loses all it had on disk."""
        shutil.rmtree(self._data)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Connections stay and new ones are accepted by the kernel, but nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


@contextlib.contextmanager
def valkey(home: Path) -> Iterator[Valkey]:
    server = Valkey(home / "valkey")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def database(kind: str, home: Path) -> Iterator[str]:
    """Its URL."""
    if kind == "sqlite":
        yield f"sqlite:///{home / 'drill.sqlite3'}"
        return
    with servers.postgresql() as url:
        try:
            yield url
        finally:
            _stop_again(url)


@contextlib.contextmanager
def postgresql_stopped(url: str) -> Iterator[None]:
    """The server is shut down at once, as by a crash, and recovers when the block ends."""
    import psycopg

    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT current_setting('data_directory'), current_setting('unix_socket_directories'),"
            " current_setting('port')"
        ).fetchone()
    assert row is not None
    data, socket_dir, port = row
    _pg_ctl("stop", "-D", data, "-m", "immediate")
    try:
        yield
    finally:
        options = f"-p {port} -k {socket_dir} -c listen_addresses=127.0.0.1"
        _pg_ctl("start", "-D", data, "-o", options, "-l", f"{socket_dir}/again.log")


def _stop_again(url: str) -> None:
    """Nobody else stops a server that `postgresql_stopped` has started again."""
    import psycopg

    with contextlib.suppress(psycopg.Error, subprocess.CalledProcessError):
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT current_setting('data_directory')").fetchone()
        _pg_ctl("stop", "-D", row[0] if row else "", "-m", "fast")


def _pg_ctl(*arguments: str) -> None:
    user = "postgres" if os.getuid() == 0 else None
    as_user = {"user": user, "group": user, "extra_groups": []} if user else {}
    command = [servers.binary("pg_ctl"), "-w", "-s", *arguments]
    subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, **as_user)  # type: ignore[call-overload]


@contextlib.contextmanager
def sqlite_locked(url: str) -> Iterator[None]:
    """Nobody else can write, and with the exclusive lock of the file's WAL, nobody can even begin."""
    import sqlite3

    connection = sqlite3.connect(
        url.removeprefix("sqlite://"), isolation_level=None, timeout=30, check_same_thread=False
    )
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


class Outage:
    """Runs the block's `with` in the background for so many seconds: the drill goes on meanwhile. `end`: monotonic."""

    def __init__(self, broken: contextlib.AbstractContextManager[None], seconds: float) -> None:
        self._broken, self._seconds = broken, seconds
        self._thread = threading.Thread(target=self._run)
        self.end = float("inf")
        self.error: BaseException | None = None
        self._begun = threading.Event()

    def __enter__(self) -> Outage:
        self._thread.start()
        self._begun.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        if self.error is not None:
            raise self.error

    @property
    def lasts(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            with self._broken:
                self._begun.set()
                time.sleep(self._seconds)
        except BaseException as error:
            self.error = error
        finally:
            self._begun.set()
            self.end = time.monotonic()
