"""Envelopes that nobody can read: parked with their bytes, counted, and in nobody's way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from queue_app.transport import parked

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
        connection.drain_events(timeout=5)
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
    connection.drain_events(timeout=5)
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
