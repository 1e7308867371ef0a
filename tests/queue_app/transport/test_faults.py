"""The server dies, goes silent, fills up or is demoted."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import selectors
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection
from redis.exceptions import OutOfMemoryError

from queue_app.transport import transport_url
from tests import servers

from . import celery_app
from .conftest import Connect, Server, Worker, until
from .test_channel import Inbox, drained, publish

Start = Callable[..., Worker]
THREADS = ("-P", "threads", "-c", "4")


def kill_9(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        os.kill(client.info("server")["process_id"], signal.SIGKILL)


def trace(url: str, file: Path, numbers: range, nap_s: float = 0) -> None:
    """Publish on a connection of its own."""
    with Connection(transport_url(url)) as connection, connection.Producer() as producer:
        for number in numbers:
            celery_app.trace.apply_async((str(file), number, nap_s), producer=producer, retry=False)


def traced(file: Path) -> set[int]:
    return {int(number) for number in file.read_text().split()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "traces"
    path.touch()
    return path


def test_kill_9__of_the_one_who_restores__keeps_nobody_out_for_long(connect: Connect, server: Server) -> None:
    victim = connect()
    publish(victim, 1)
    assert victim.default_channel.basic_get("q") is not None
    (tag,) = server.unacked()
    server.redis.zadd(f"{server.prefix}unacked_index", {tag: 1.0})  # long ago
    pid = os.fork()
    if pid == 0:
        try:
            qos = connect().default_channel.qos
            qos._take_back = lambda tag, client: os.kill(os.getpid(), signal.SIGKILL)
            qos.restore_visible()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert server.redis.exists(f"{server.prefix}unacked_mutex")
    other = connect().default_channel.qos
    until(lambda: other.restore_visible() or not server.unacked(), "another restores")
    assert len(server.bodies()) == 1


@pytest.mark.slow
def test_killed_server__workers_idle_and_busy__go_on_when_it_is_back(
    start_worker: Start, tmp_path: Path, file: Path
) -> None:
    port, data = servers.free_port(), tmp_path / "data"
    data.mkdir()
    start_worker(*THREADS, broker=transport_url(f"redis://127.0.0.1:{port}/0"), ready=False)
    with servers.valkey(port=port, data_dir=data) as url:
        trace(url, file, range(1))
        until(lambda: traced(file) == {0}, "it runs a task, and waits for a token then")
        kill_9(url)
    with servers.valkey(port=port, data_dir=data) as url:
        trace(url, file, range(1, 61), nap_s=0.05)
        until(lambda: len(traced(file)) > 10, "it goes on")
        with redis.Redis.from_url(url) as client:  # what is written is on the disk, whatever appendfsync says
            client.config_set("appendfsync", "always")
        kill_9(url)
    with servers.valkey(port=port, data_dir=data) as url:
        until(lambda: traced(file) == set(range(61)), "all run")


class Proxy:
    """A TCP proxy. `freeze()`: the connections it has stay open and nothing passes; new ones work."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._frozen: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._open = True
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def _run(self) -> None:
        while self._open:
            for key, _ in self._selector.select(0.05):
                with self._lock:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj in self._pairs:
                        self._relay(key.fileobj)

    def _accept(self) -> None:
        near = self._listener.accept()[0]
        self._clients.add(near)
        far = socket.create_connection(("127.0.0.1", self._target))
        for this, other in ((near, far), (far, near)):
            self._pairs[this] = other
            self._selector.register(this, selectors.EVENT_READ)

    def _relay(self, this: Any) -> None:
        other = self._pairs[this]
        try:
            if chunk := this.recv(65536):
                other.sendall(chunk)
                return
        except OSError:
            pass
        for end in (this, other):
            self._selector.unregister(end)
            self._pairs.pop(end).close()
        this.close()

    def mute(self) -> None:
        """New ones are accepted, and nothing passes either."""
        self.freeze()
        with self._lock:
            self._selector.unregister(self._listener)

    def freeze(self) -> None:
        with self._lock:
            for end in self._pairs:
                self._selector.unregister(end)
            self._frozen |= self._pairs
            self._pairs = {}

    def asked(self) -> bytes:
        """What has come on frozen connections since this was called last."""
        found = b""
        for near in self._clients & self._frozen.keys():
            with contextlib.suppress(OSError):
                while chunk := near.recv(65536, socket.MSG_DONTWAIT):
                    found += chunk
        return found

    def knocks(self) -> int:
        """How many connections have come since it is mute."""
        self._listener.settimeout(0)
        found = 0
        with contextlib.suppress(OSError):
            while True:
                self._listener.accept()[0].close()
                found += 1
        return found

    def close(self) -> None:
        self._open = False
        self._thread.join()
        for end in [*self._pairs, *self._frozen, self._listener]:
            end.close()
        self._selector.close()


@pytest.mark.slow
def test_half_open_connection__idle_worker__reconnects(start_worker: Start, file: Path) -> None:
    port = servers.free_port()
    with servers.valkey(port=port) as url, contextlib.closing(Proxy(port)) as proxy:
        start_worker(*THREADS, broker=transport_url(proxy.url), SOCKET_TIMEOUT_S="2")
        trace(url, file, range(1))
        until(lambda: traced(file) == {0}, "it runs a task")
        proxy.freeze()
        trace(url, file, range(1, 2))
        until(lambda: traced(file) == {0, 1}, "it notices and reconnects")


def half_opened(connect: Connect, proxy: Proxy) -> tuple[Connection, Inbox]:
    """A consumer with five messages, on a connection that has just turned out to be half-open."""
    connection = connect(url=proxy.url, socket_timeout=0.5)
    publish(connection, *range(6))
    inbox = Inbox(connection, prefetch=5)
    drained(connection)
    proxy.freeze()
    with pytest.raises(connection.connection_errors):
        inbox.messages[0].ack()
    return connection, inbox


def test_wait__longer_than_the_socket_timeout__is_no_lost_connection(
    connect: Connect, server: Server
) -> None:
    """A wait for a token is polled: what limits a reply on the socket does not end it."""
    connection = connect(socket_timeout=0.2, polling_interval=3)
    inbox = Inbox(connection)
    drained(connection, 1)
    assert inbox.channel.waiting
    publish(connect(), "late")
    drained(connection)
    assert inbox.bodies == ["late"]
    assert not connection.transport.doubted


def test_close__half_open_connections__acks_and_gives_back_on_a_new_one(
    connect: Connect, prefix: str
) -> None:
    port = servers.free_port()
    with servers.valkey(port=port) as url, contextlib.closing(Proxy(port)) as proxy:
        server = Server(url, prefix)
        connection, _ = half_opened(connect, proxy)
        proxy.asked()
        connection.collect()
        assert proxy.asked() == b""  # on the connection that has turned out to be half-open
        assert [json.loads(raw)["body"] for raw in server.bodies()] == bodies(1, 2, 3, 4, 5)
        assert server.unacked() == set()


def test_close__server_that_is_silent_for_good__is_asked_once(connect: Connect, prefix: str) -> None:
    port = servers.free_port()
    with servers.valkey(port=port) as url, contextlib.closing(Proxy(port)) as proxy:
        server = Server(url, prefix)
        connection, inbox = half_opened(connect, proxy)
        second = connection.channel()
        second.basic_consume("r", False, lambda message: None, "r")
        proxy.mute()
        connection.collect()
        assert proxy.knocks() == 1
        assert len(inbox.messages) == len(server.unacked()) == 5


def bodies(*values: Any) -> list[str]:
    return [base64.b64encode(json.dumps(value).encode()).decode() for value in values]


@pytest.fixture
def small() -> Iterator[str]:
    """A server that this test may fill and demote."""
    with servers.valkey() as url:
        yield url


def test_full_server__publisher_is_refused__consumer_still_empties_it(connect: Connect, small: str) -> None:
    connection = connect(url=small)
    publish(connection, *range(100))
    inbox = Inbox(connection, prefetch=1000)
    with redis.Redis.from_url(small) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        with pytest.raises(OutOfMemoryError):
            publish(connection, "no room")
        drained(connection)
        for message in inbox.messages:
            message.ack()
        client.config_set("maxmemory", 0)
    assert inbox.bodies == list(range(100))


@pytest.mark.parametrize("waiting", [True, False], ids=["waiting", "claiming"])
def test_demoted_server__consumer__sees_a_lost_connection(
    connect: Connect, small: str, waiting: bool
) -> None:
    connection = connect(url=small)
    Inbox(connection)
    if waiting:
        drained(connection)
    with redis.Redis.from_url(small) as client:
        client.replicaof("127.0.0.1", "1")
    with pytest.raises(connection.connection_errors):
        connection.drain_events(timeout=10)


def test_lost_claim__its_messages__stay_in_unacked(connect: Connect, prefix: str, valkey: str) -> None:
    """The server has answered and the connection breaks: nothing is lost, and the visibility timeout brings it back."""
    connection, server = connect(visibility_timeout=0.3, unacked_restore_interval=0.1), Server(valkey, prefix)
    publish(connection, 1)
    inbox = Inbox(connection)
    connection.transport.cycle.on_poll_start()
    until(server.unacked, "the server has done it")
    inbox.channel.client.connection.disconnect()
    until(lambda: drained(connection, 0.1) or inbox.messages, "it comes back")
    assert inbox.bodies == [1]
    server.redis.close()
