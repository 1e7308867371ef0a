"""Envelopes that nobody can read: parked with their bytes, counted, and in nobody's way."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis

from queue_app.transport import envelope, parked
from tests import servers

from .conftest import Connect, Server
from .test_channel import Inbox, drained, publish

UNREADABLE = [
    b"not json at all",
    b"\xff\xfe\x00\x01",
    b"",
    b"[]",
    b'"text"',
    b'{"properties": {}}',
    b'{"body": "", "properties": {"delivery_tag": ""}}',
    b'{"body": "", "properties": {"delivery_tag": "cut off',
    b'{"body": "", "headers": {"delivery_tag": "t1"}, "properties": {}}',
    b'{"headers": {}, "delivery_tag": "t2"}',
    b'{"body": "aGk", "properties": {"body_encoding": "base64", "delivery_tag": "t3"}}',
    b'{"body": "aGk=", "properties": {"body_encoding": "rot13", "delivery_tag": "t4"}}',
    b'{"body": 5, "properties": {"body_encoding": "base64", "delivery_tag": "t5"}}',
    b'{"body": "", "properties": {"delivery_tag": {"a": 1}}}',
    b'{"delivery_tag": "t6"} trailing',
    b'{"n": ' * 2000 + b'"delivery_tag": "t7"',
]


def test_unreadable_envelopes__each_kind__is_parked_and_holds_nothing_up(
    connect: Connect, server: Server
) -> None:
    connection = connect()
    publish(connection, "before")
    for raw in UNREADABLE:
        server.push(raw)
    publish(connection, "after")
    inbox = Inbox(connection, prefetch=50)
    drained(connection)
    assert inbox.bodies == ["before", "after"]
    assert server.unacked() == {message.delivery_tag.encode() for message in inbox.messages}
    found = parked.newest(server.redis, prefix=server.prefix)
    assert sorted(entry.raw for entry in found) == sorted(UNREADABLE)
    assert {entry.queue for entry in found} == {"q"}
    assert parked.count(server.redis, server.prefix) == {"q": len(UNREADABLE)}


def test_unreadable_envelopes__basic_get__passes_over_them(connect: Connect, server: Server) -> None:
    for raw in UNREADABLE:
        server.push(raw)
    connection = connect()
    publish(connection, "good")
    assert connection.default_channel.basic_get("q").decode() == "good"
    assert parked.count(server.redis, server.prefix) == {"q": len(UNREADABLE)}


@pytest.mark.parametrize(
    "properties",
    [
        {"delivery_tag": 'a"b\\c'},
        {"delivery_tag": "süß"},
        {"delivery_tag": 7},
    ],
)
def test_unusual_tags__foreign_publisher__are_delivered_and_acknowledged(
    connect: Connect, server: Server, properties: dict[str, Any]
) -> None:
    header = {"delivery_tag": "of somebody else"}
    for ascii_only in (True, False):
        server.push(
            json.dumps(
                {
                    "properties": properties,
                    "body": "{}",
                    "content-type": "application/json",
                    "headers": header,
                },
                ensure_ascii=ascii_only,
            )
        )
        connection = connect()
        inbox = Inbox(connection)
        connection.drain_events(timeout=30)
        assert inbox.messages[0].payload == {}
        assert server.unacked() == {str(properties["delivery_tag"]).encode()}
        inbox.messages[0].ack()
        assert server.unacked() == set()


def test_unreadable_claim__of_a_worker_that_died__is_parked_by_the_restore(
    connect: Connect, server: Server
) -> None:
    raw, entry = b'{"delivery_tag": "t"', b'[{"delivery_tag": "t", "", "q\\"2"]'
    server.redis.hset(f"{server.prefix}unacked", mapping={"t": entry, "u": b"\xff"})
    server.redis.zadd(f"{server.prefix}unacked_index", {"t": 1.0, "u": 1.0})
    connection = connect()
    publish(connection, 1)
    connection.default_channel.qos.restore_visible(num=None)
    assert server.unacked() == set()
    found = {entry.queue: entry.raw for entry in parked.newest(server.redis, prefix=server.prefix)}
    assert found == {'q"2': raw, "": b"\xff"}


def test_restore__message_that_no_queue_is_bound_for__is_parked_not_dropped(
    connect: Connect, server: Server
) -> None:
    server.redis.hset(f"{server.prefix}unacked", "t", b'[{"properties": {}, "headers": {}}, "nowhere", "k"]')
    server.redis.zadd(f"{server.prefix}unacked_index", {"t": 1.0})
    connect().default_channel.qos.restore_visible(num=None)
    (entry,) = parked.newest(server.redis, prefix=server.prefix)
    assert json.loads(entry.raw) == {"properties": {}, "headers": {}}
    assert "no queue is bound" in entry.reason


def test_parked__put_back_and_discard__happen_once(connect: Connect, server: Server) -> None:
    connection = connect()
    publish(connection, "mended")
    (good,) = server.bodies()
    server.redis.delete(f"{server.prefix}q")
    for raw in (b"one", b"two"):
        server.push(raw)
    inbox = Inbox(connection)
    drained(connection)
    two, one = parked.newest(server.redis, prefix=server.prefix)
    assert (one.raw, two.raw) == (b"one", b"two")
    assert parked.put_back(server.redis, one, good, prefix=server.prefix)
    assert not parked.put_back(server.redis, one, good, prefix=server.prefix)
    assert parked.discard(server.redis, two, prefix=server.prefix)
    assert not parked.discard(server.redis, two, prefix=server.prefix)
    connection.drain_events(timeout=30)
    assert inbox.bodies == ["mended"]
    assert parked.newest(server.redis, prefix=server.prefix) == []
    assert parked.count(server.redis, server.prefix) == {"q": 2}


def test_parked__more_than_a_thousand__keeps_the_newest_and_counts_all(
    connect: Connect, server: Server
) -> None:
    for number in range(1010):
        server.push(f"garbage {number}")
    connection = connect()
    Inbox(connection, prefetch=100)
    drained(connection)
    found = parked.newest(server.redis, 2000, server.prefix)
    assert (len(found), found[0].raw) == (1000, b"garbage 1009")
    assert parked.count(server.redis, server.prefix) == {"q": 1010}


def die(server: Server) -> None:
    """Whoever holds messages is dead: the visibility timeout is over."""
    for tag in server.unacked():
        server.redis.zadd(f"{server.prefix}unacked_index", {tag: 1.0})


def test_delivery_limit__consumers_die_of_it__is_parked_and_the_rest_goes_on(
    connect: Connect, server: Server
) -> None:
    publish(connect(delivery_limit=2), "poison")
    for _ in range(3):  # the first delivery and two more
        connection = connect(delivery_limit=2)
        claimed = connection.default_channel.basic_get("q")
        assert claimed.decode() == "poison"
        die(server)
        connection.default_channel.qos.restore_visible(num=None)
    assert server.unacked() == set()
    assert server.bodies() == []
    (entry,) = parked.newest(server.redis, prefix=server.prefix)
    assert (entry.queue, entry.reason) == ("q", "delivery limit: taken back from 3 consumers that died")
    assert parked.count(server.redis, server.prefix) == {"q": 1}
    assert parked.given_up(server.redis, prefix=server.prefix) == [entry]
    parked.recorded(server.redis, entry, server.prefix)
    assert parked.given_up(server.redis, prefix=server.prefix) == []

    assert parked.put_back(server.redis, entry, prefix=server.prefix)  # and its count begins anew
    message = connect().default_channel.basic_get("q")
    assert (message.decode(), envelope.DEATHS in message.properties) == ("poison", False)


def test_delivery_limit__warm_give_back_and_requeue__are_not_counted(
    connect: Connect, server: Server
) -> None:
    publish(connect(), 1)
    for _ in range(5):
        connection = connect(delivery_limit=0)
        connection.default_channel.basic_get("q").requeue()
        Inbox(connection, prefetch=1)
        drained(connection, 0.1)
        connection.release()
    assert len(server.bodies()) == 1
    assert parked.count(server.redis, server.prefix) == {}


@pytest.mark.parametrize("limit", [-1, 20])
def test_delivery_limit__not_reached_or_none__comes_back(
    connect: Connect, server: Server, limit: int
) -> None:
    publish(connect(), 1)
    for _ in range(6):
        channel = connect(delivery_limit=limit).default_channel
        assert channel.basic_get("q").decode() == 1
        die(server)
        channel.qos.restore_visible(num=None)
    assert json.loads(server.bodies()[0])["properties"][envelope.DEATHS] == 6


def test_delivery_limit__counted_message__is_an_ordinary_one_for_stock_kombu(
    connect: Connect, server: Server
) -> None:
    publish(connect(), 1)
    ours = connect().default_channel
    ours.basic_get("q")
    die(server)
    ours.qos.restore_visible(num=None)
    stock = connect(stock=True).default_channel
    message = stock.basic_get("q")
    assert message.decode() == 1
    stock.qos.restore_by_tag(message.delivery_tag)  # and it keeps our count
    assert json.loads(server.bodies()[0])["properties"][envelope.DEATHS] == 1


def test_delivery_limit__full_server__keeps_it_in_unacked(connect: Connect) -> None:
    with servers.valkey() as url, redis.Redis.from_url(url) as client:
        connection = connect(url=url, delivery_limit=0)
        publish(connection, 1)
        channel = connection.default_channel
        tag = channel.basic_get("q").delivery_tag
        client.zadd(channel.full_key("unacked_index"), {tag: 1.0})
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        connection.transport.cycle.maybe_restore_messages()
        client.config_set("maxmemory", 0)
        assert client.hlen(channel.full_key("unacked")) == 1
