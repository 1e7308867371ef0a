"""Whatever consumers do, in whatever order: every message is in exactly one place."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu import Connection

from queue_app.transport import transport_url

from .conftest import Server
from .test_channel import Inbox, Q, R, publish

STEPS = ("publish", "send", "poll", "ack", "requeue", "get", "cancel", "reopen", "kill", "restore")


class World:
    """A publisher and three consumers of two queues; `acked` holds the numbers that must not be seen again."""

    def __init__(self, url: str) -> None:
        self.server = Server(url, f"test:{uuid.uuid4().hex[:12]}:")
        self._url = url
        self._publisher = self._connect()
        self._inboxes = [self._inbox() for _ in range(3)]
        self._published = 0
        self.acked: set[int] = set()

    def _connect(self) -> Connection:
        options = {"global_keyprefix": self.server.prefix, "socket_timeout": 20}
        return Connection(transport_url(self._url), transport_options=options)

    def _inbox(self) -> Inbox:
        return Inbox(self._connect(), Q, R, prefetch=4)

    def publish(self, which: int) -> None:
        for _ in range(3):
            publish(
                self._publisher, self._published, queue="qr"[which % 2], priority=(0, 9)[self._published % 2]
            )
            self._published += 1

    def send(self, which: int) -> None:
        """The claim leaves; its reply stays in the socket."""
        self._inboxes[which].connection.transport.cycle.on_poll_start()

    def poll(self, which: int) -> None:
        with contextlib.suppress(socket.timeout):
            self._inboxes[which].connection.drain_events(timeout=0.005)

    def ack(self, which: int) -> None:
        self._settle(which, "ack")

    def requeue(self, which: int) -> None:
        self._settle(which, "requeue")

    def _settle(self, which: int, how: str) -> None:
        for message in self._inboxes[which].messages:
            if not message.acknowledged:
                getattr(message, how)()
                if how == "ack":
                    self.acked.add(message.decode())
                return

    def get(self, which: int) -> None:
        message = self._inboxes[which].channel.basic_get("q")
        if message is not None:
            self._inboxes[which].messages.append(message)

    def cancel(self, which: int) -> None:
        self._inboxes[which].consumer.cancel()
        self._inboxes[which].consumer.consume()

    def reopen(self, which: int) -> None:
        self._inboxes[which].connection.release()
        self._inboxes[which] = self._inbox()

    def kill(self, which: int) -> None:
        """As kill -9: the sockets close, and nobody gives anything back."""
        channel = self._inboxes[which].channel
        if channel.client.connection is not None:
            channel.client.connection.disconnect()
        channel.qos._delivered.clear()
        channel.held.clear()
        self._inboxes[which].connection.release()
        self._inboxes[which] = self._inbox()

    def restore(self, which: int) -> None:
        """The visibility timeout of all that is unacknowledged runs out; its holders do not know."""
        tags = self.server.unacked()
        for inbox in self._inboxes:  # whoever lives has renewed its own
            tags -= {tag.encode() for tag in inbox.channel.qos._delivered}
            if inbox.channel.claiming:
                return
        if tags:
            self.server.redis.zadd(f"{self.server.prefix}unacked_index", dict.fromkeys(tags, 1.0))
            self._publisher.default_channel.qos.restore_visible(num=None)

    def close(self) -> None:
        for inbox in self._inboxes:
            inbox.connection.release()

    def numbers(self) -> list[int]:
        """Of every message on the server, wherever it is; one snapshot."""
        prefix = self.server.prefix
        with self.server.redis.pipeline() as snapshot:
            for name in ("q", "r"):
                for step in ("", "\x06\x163", "\x06\x166", "\x06\x169"):
                    snapshot.lrange(f"{prefix}{name}{step}", 0, -1)
            *lists, held = snapshot.hvals(f"{prefix}unacked").execute()
        raws = [json.loads(raw) for found in lists for raw in found] + [json.loads(raw)[0] for raw in held]
        return [json.loads(base64.b64decode(raw["body"])) for raw in raws]

    def check(self) -> None:
        found = self.numbers()
        assert len(found) == len(set(found))
        assert set(found) == set(range(self._published)) - self.acked

    def clean(self) -> None:
        self.close()
        self._publisher.release()
        for key in self.server.redis.scan_iter(f"{self.server.prefix}*", 1000):
            self.server.redis.delete(key)
        self.server.redis.close()


@pytest.mark.slow
@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 2)), min_size=10, max_size=30))
def test_any_interleaving__each_message__is_in_exactly_one_place(
    valkey: str, steps: list[tuple[str, int]]
) -> None:
    world = World(valkey)
    try:
        world.publish(0)
        for name, which in steps:
            step: Callable[[int], Any] = getattr(world, name)
            step(which)
            world.check()
        world.close()
        world.check()
        world.restore(0)
        world.check()
        assert world.server.unacked() == set()
    finally:
        world.clean()
