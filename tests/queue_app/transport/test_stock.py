"""The contract with stock Kombu on the same keys: either side reads, restores and gives back what the other wrote."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest
from kombu import Connection, Exchange, Producer, Queue

from .conftest import TIMEOUT_S, Connect, Server
from .test_channel import Inbox, Q, drained, publish

DIRECTIONS = pytest.mark.parametrize("stock_publishes", [True, False], ids=["stock-ours", "ours-stock"])


def pair(connect: Connect, stock_publishes: bool, **options: object) -> tuple[Connection, Connection]:
    """Publisher and consumer."""
    return connect(stock=stock_publishes, **options), connect(stock=not stock_publishes, **options)


def consumed(inbox: Inbox, count: int) -> None:
    """With short waits: stock Kombu restores only after one in which nothing came."""
    deadline = time.monotonic() + TIMEOUT_S
    while len(inbox.messages) < count and time.monotonic() < deadline:
        with contextlib.suppress(socket.timeout):
            inbox.channel.connection.client.drain_events(timeout=0.1)
    assert len(inbox.messages) == count


@DIRECTIONS
def test_messages__of_every_step__reach_the_other_side(
    connect: Connect, server: Server, stock_publishes: bool
) -> None:
    publisher, consumer = pair(connect, stock_publishes)
    for step in (9, 0, 3):
        publish(publisher, f"step {step}", priority=step, headers={"n": step})
    inbox = Inbox(consumer, prefetch=10)
    consumed(inbox, 3)
    assert inbox.bodies == ["step 0", "step 3", "step 9"]
    assert [message.headers for message in inbox.messages] == [{"n": 0}, {"n": 3}, {"n": 9}]
    assert len(server.unacked()) == 3
    for message in inbox.messages:
        message.ack()
    assert server.unacked() == set()


@DIRECTIONS
def test_bindings__declared_by_one_side__route_for_the_other(connect: Connect, stock_publishes: bool) -> None:
    publisher, consumer = pair(connect, stock_publishes)
    Queue("q", Exchange("x", "topic"), "a.*")(consumer.default_channel).declare()
    exchange = Exchange("x", "topic")(publisher.default_channel)
    exchange.declare()
    Producer(publisher.default_channel, exchange).publish("routed", routing_key="a.b")
    inbox = Inbox(consumer)
    consumed(inbox, 1)
    assert inbox.bodies == ["routed"]


@DIRECTIONS
def test_close__unacked_messages__go_to_the_other_side(
    connect: Connect, server: Server, stock_publishes: bool
) -> None:
    first, second = pair(connect, stock_publishes)
    publish(first, 1, 2)
    leaving = Inbox(first, prefetch=2)
    consumed(leaving, 2)
    leaving.channel.close()
    assert server.unacked() == set()
    inbox = Inbox(second, prefetch=10)
    consumed(inbox, 2)
    assert sorted(inbox.bodies) == [1, 2]
    assert all(message.headers["redelivered"] for message in inbox.messages)


@DIRECTIONS
def test_visibility_timeout__claims_of_a_dead_worker__are_restored_by_the_other_side(
    connect: Connect, server: Server, stock_publishes: bool
) -> None:
    """stock_publishes: the stock side also claims, and dies."""
    options = {"visibility_timeout": 0.5, "unacked_restore_interval": 0.2, "unacked_restore_throttle": 1}
    dying, living = pair(connect, stock_publishes, **options)
    Queue("q", Exchange("x"), "k")(dying.default_channel).declare()
    Producer(dying.default_channel).publish("survivor", exchange="x", routing_key="k")
    claimed = Inbox(dying)
    consumed(claimed, 1)
    Queue("q", Exchange("x"), "k")(living.default_channel).declare()
    inbox = Inbox(living)
    consumed(inbox, 1)
    assert inbox.bodies == ["survivor"]
    claimed.channel.qos._delivered.clear()  # a dead process gives nothing back


def test_fanout__between_the_two__is_received_by_both(connect: Connect) -> None:
    ours, stock = connect(), connect(stock=True)
    exchange = Exchange("news", "fanout")
    inboxes = []
    for number, connection in enumerate((ours, stock)):
        queue = Queue(f"n{number}", exchange, auto_delete=True)
        queue(connection.default_channel).declare()
        inbox = Inbox(connection, queue(connection.default_channel), no_ack=True)
        drained(connection)  # subscribes
        inboxes.append(inbox)
    for connection in (ours, stock):
        bound = exchange(connection.default_channel)
        bound.declare()
        Producer(connection.default_channel, bound).publish("hear")
    for inbox in inboxes:
        consumed(inbox, 2)
        assert inbox.bodies == ["hear", "hear"]


def test_token__of_a_stock_restore__is_not_needed(connect: Connect) -> None:
    """A stock worker gives back without a token: the poll of an idle consumer finds it."""
    publisher, ours = connect(stock=True), connect()
    inbox = Inbox(ours, Q)
    drained(ours)
    publish(publisher, 1)
    leaving = Inbox(publisher)
    drained(publisher, 0.05)  # either of the two gets it; the stock one leaves
    leaving.channel.close()
    consumed(inbox, 1)
    assert inbox.bodies == [1]
