"""What a channel does to the server's keys: publish, claim, acknowledge, give back."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Producer, Queue
from redis.client import Pipeline

from queue_app.transport.envelope import bodiless

from .conftest import Connect, Server, until

Q, R = Queue("q"), Queue("r")


def publish(connection: Connection, *bodies: Any, queue: str = "q", **properties: Any) -> None:
    producer = connection.Producer()
    for body in bodies:
        producer.publish(body, routing_key=queue, **properties)


def drained(connection: Connection, timeout_s: float = 0.3) -> None:
    """Handle whatever there is. When a wait took longer than it should, the machine stood still, and the server with it."""
    while True:
        began = time.monotonic()
        try:
            connection.drain_events(timeout=timeout_s)
        except TimeoutError:
            if time.monotonic() - began < timeout_s + 0.1:
                return


class Inbox:
    """A consumer that keeps its messages."""

    def __init__(self, connection: Connection, *queues: Queue, prefetch: int = 0, **options: Any) -> None:
        self.messages: list[Any] = []
        self.connection = connection
        self.channel = connection.channel()
        self.consumer = Consumer(
            self.channel, queues or [Q], on_message=self.messages.append, auto_declare=False, **options
        )
        if prefetch:
            self.consumer.qos(prefetch_count=prefetch)
        self.consumer.consume()

    @property
    def bodies(self) -> list[Any]:
        return [message.decode() for message in self.messages]


def test_publish__idle_queue__leaves_one_token(connect: Connect, server: Server) -> None:
    publish(connect(), 1, 2, 3)
    assert len(server.bodies()) == 3
    assert server.tokens() == 1
    assert server.redis.ttl(f"{server.prefix}q\x06\x16wake") > 0  # a queue nobody reads leaves no key behind


def test_put_envelopes__bodiless__is_what_kombu_publishes(connect: Connect, server: Server) -> None:
    connection, id = connect(), str(uuid.uuid4())
    connection.Producer().publish(
        "",
        headers={"task": 'a "task"', "id": id},
        content_type="text/plain",
        content_encoding="utf-8",
        correlation_id=id,
        routing_key="q",
        priority=3,
    )
    connection.channel().put_envelopes("q", 3, bodiless('a "task"', [id], "q", 3))
    ours, kombus = map(json.loads, server.redis.lrange(f"{server.prefix}q\x06\x163", 0, -1))
    assert ours["properties"].pop("delivery_tag") != kombus["properties"].pop("delivery_tag")
    assert ours == kombus
    assert server.tokens() == 1


def test_publish_batch__many_messages__one_token_a_queue(connect: Connect, server: Server) -> None:
    with connect().Producer() as producer, producer.batch(max_size=50):
        for number in range(120):
            producer.publish(number, routing_key="q" if number % 2 else "r")
    assert len(server.bodies()) == len(server.bodies("r")) == 60
    assert server.tokens() == server.tokens("r") == 1


def test_claim__messages__are_in_unacked_until_acknowledged(connect: Connect, server: Server) -> None:
    connection = connect()
    publish(connection, *range(5))
    inbox = Inbox(connection, prefetch=10)
    drained(connection)
    assert inbox.bodies == [0, 1, 2, 3, 4]
    assert server.unacked() == {message.delivery_tag.encode() for message in inbox.messages}
    assert server.bodies() == []
    for message in inbox.messages:
        message.ack()
    assert server.unacked() == set()


def test_claim__window__is_never_exceeded(connect: Connect, server: Server) -> None:
    connection = connect()
    publish(connection, *range(20))
    inbox = Inbox(connection, prefetch=4)
    drained(connection)
    assert inbox.bodies == [0, 1, 2, 3]
    inbox.messages[0].ack()
    drained(connection)
    assert inbox.bodies == [
        0,
        1,
        2,
        3,
        4,
    ]  # one is free and no ack is on its way: a slow task leaves no slot idle


def test_claim__more_than_one_consumer_takes__hands_the_wakeup_on(connect: Connect, server: Server) -> None:
    first, second = connect(), connect()
    idle = Inbox(second, prefetch=2)
    drained(second)  # it waits for a token now
    publish(first, *range(6))
    busy = Inbox(first, prefetch=2)
    first.drain_events(timeout=30)
    assert len(busy.messages) == 2
    second.drain_events(timeout=30)
    assert len(idle.messages) == 2
    assert server.tokens() == 1  # for a third


def test_claim__stock_publisher_without_token__is_found_by_the_poll(connect: Connect, server: Server) -> None:
    connection = connect()
    inbox = Inbox(connection)
    drained(connection)
    publish(connect(stock=True), "hello")
    assert server.tokens() == 0
    connection.drain_events(timeout=30)
    assert inbox.bodies == ["hello"]


def test_claim__typed_headers__come_back_as_stock_reads_them(connect: Connect, server: Server) -> None:
    connection, mark = connect(), uuid.uuid4()
    publish(connection, 1, headers={"mark": mark})
    inbox = Inbox(connection)
    connection.drain_events(timeout=30)
    assert inbox.messages[0].headers["mark"] == mark


def test_claim__nothing_there__drain_events_times_out(connect: Connect) -> None:
    connection = connect()
    Inbox(connection)
    with pytest.raises(socket.timeout):
        connection.drain_events(timeout=0.2)
    with pytest.raises(socket.timeout):
        connection.drain_events(timeout=1.5)  # past the end of a wait for a token


def test_priority__several_queues__is_strict_between_steps(connect: Connect) -> None:
    connection = connect()
    for step in (9, 3, 6, 0):
        for queue in ("q", "r"):
            publish(connection, f"{queue}{step}a", f"{queue}{step}b", queue=queue, priority=step)
    inbox = Inbox(connection, Q, R, prefetch=3)
    while len(inbox.messages) < 16:
        connection.drain_events(timeout=30)
        for message in inbox.messages:
            if not message.acknowledged:
                message.ack()
    assert [int(body[1]) for body in inbox.bodies] == [0] * 4 + [3] * 4 + [6] * 4 + [9] * 4


def test_rotation__full_queues_of_one_step__share_each_claim(connect: Connect) -> None:
    connection = connect()
    publish(connection, *["q"] * 50)
    publish(connection, *["r"] * 50, queue="r")
    inbox = Inbox(connection, Q, R, prefetch=10)
    connection.drain_events(timeout=30)
    assert sorted(inbox.bodies) == ["q"] * 5 + ["r"] * 5


def test_rotation__window_of_one__takes_turns(connect: Connect) -> None:
    connection = connect()
    publish(connection, *["q"] * 10)
    publish(connection, *["r"] * 10, queue="r")
    inbox = Inbox(connection, Q, R, prefetch=1)
    for _ in range(6):
        connection.drain_events(timeout=30)
        inbox.messages[-1].ack()
    assert inbox.bodies in (["q", "r"] * 3, ["r", "q"] * 3)


def test_rotation__order_strategy_priority__serves_the_first_queue_first(connect: Connect) -> None:
    connection = connect(queue_order_strategy="priority")
    publish(connection, *["r"] * 6, queue="r")
    publish(connection, *["q"] * 6)
    inbox = Inbox(connection, Q, R, prefetch=8)
    connection.drain_events(timeout=30)
    assert inbox.bodies == ["q"] * 6 + ["r"] * 2


def test_no_ack__delivered_message__is_not_left_in_unacked(connect: Connect, server: Server) -> None:
    connection = connect()
    publish(connection, 1, 2, 3)
    inbox = Inbox(connection, no_ack=True, prefetch=10)
    drained(connection)
    assert inbox.bodies == [1, 2, 3]
    assert server.unacked() == set()
    assert server.bodies() == []


def test_reject__with_and_without_requeue__returns_or_removes(connect: Connect, server: Server) -> None:
    connection = connect()
    publish(connection, "gone", "back")
    inbox = Inbox(connection, prefetch=2)
    connection.drain_events(timeout=30)
    inbox.messages[0].reject()
    inbox.messages[1].requeue()
    assert server.unacked() == set()
    assert [json.loads(raw)["headers"] for raw in server.bodies()] == [{"redelivered": True}]
    connection.drain_events(timeout=30)
    assert inbox.bodies == ["gone", "back", "back"]


def test_close__unacked_messages__go_back_in_order_with_a_token(connect: Connect, server: Server) -> None:
    connection = connect()
    publish(connection, *range(5))
    publish(connection, "later", priority=6)
    inbox = Inbox(connection, prefetch=4)
    connection.drain_events(timeout=30)
    inbox.messages[1].ack()
    inbox.channel.close()
    assert server.unacked() == set()
    assert server.tokens() == 1
    again = Inbox(connect(), prefetch=10)
    drained(again.channel.connection.client)
    assert again.bodies == [0, 2, 3, 4, "later"]
    assert [bool(message.headers.get("redelivered")) for message in again.messages] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_close__claim_still_in_the_socket__is_given_back_untouched(connect: Connect, server: Server) -> None:
    connection = connect()
    publish(connection, *range(3))
    before = server.bodies()
    inbox = Inbox(connection, prefetch=10)
    connection.transport.cycle.on_poll_start()  # sends the claim and does not read the reply
    until(server.unacked, "the server has done it")
    inbox.channel.close()
    assert server.unacked() == set()
    assert server.bodies() == before
    assert inbox.messages == []


def test_cancel__claim_in_flight__is_given_back_and_consuming_again_works(
    connect: Connect, server: Server
) -> None:
    connection = connect()
    publish(connection, *range(3))
    inbox = Inbox(connection, prefetch=10)
    connection.transport.cycle.on_poll_start()
    inbox.consumer.cancel()
    assert server.unacked() == set()
    assert len(server.bodies()) == 3
    inbox.consumer.consume()
    connection.drain_events(timeout=30)
    assert inbox.bodies == [0, 1, 2]
    inbox.consumer.cancel()  # while it waits
    inbox.consumer.consume()
    publish(connection, 3)
    drained(connection)
    assert inbox.bodies == [0, 1, 2, 3]


def test_cancel__one_of_two_queues_with_a_claim_in_flight__returns_its_messages(
    connect: Connect, server: Server
) -> None:
    connection = connect()
    publish(connection, "q")
    publish(connection, "r", queue="r")
    inbox = Inbox(connection, Q, R, prefetch=10)
    connection.transport.cycle.on_poll_start()
    inbox.consumer.cancel_by_queue("r")
    connection.drain_events(timeout=30)
    assert inbox.bodies == ["q"]
    assert len(server.bodies("r")) == 1
    assert server.tokens("r") == 1


def test_failing_consumer__rest_of_the_claim__goes_back_in_order(connect: Connect, server: Server) -> None:
    connection = connect()
    publish(connection, *range(4))

    def fail(message: Any) -> None:
        raise RuntimeError("no")

    channel = connection.channel()
    consumer = Consumer(channel, [Q], on_message=fail, auto_declare=False)
    consumer.qos(prefetch_count=10)
    consumer.consume()
    with pytest.raises(RuntimeError):
        connection.drain_events(timeout=30)
    assert len(server.unacked()) == 1  # the one it failed on; it has seen it
    assert [json.loads(raw)["body"] for raw in server.bodies()] == ["MQ==", "Mg==", "Mw=="]
    channel.close()
    assert [json.loads(raw)["body"] for raw in server.bodies()] == ["MA==", "MQ==", "Mg==", "Mw=="]


def test_basic_get__message__is_held_or_gone(connect: Connect, server: Server) -> None:
    connection = connect()
    publish(connection, 1, 2)
    channel = connection.channel()
    message = channel.basic_get("q")
    assert server.unacked() == {message.delivery_tag.encode()}
    message.ack()
    assert channel.basic_get("q", no_ack=True).decode() == 2
    assert server.unacked() == set()
    assert channel.basic_get("q") is None


def test_queue_operations__declare_purge_delete__leave_nothing_behind(
    connect: Connect, server: Server
) -> None:
    connection = connect()
    channel = connection.default_channel
    queue = Queue("q", Exchange("x"), "k")(channel)
    queue.declare()
    Producer(channel).publish(1, exchange="x", routing_key="k")
    Producer(channel).publish(2, exchange="x", routing_key="k", priority=9)
    assert channel.queue_declare("q", passive=True).message_count == 2
    assert channel.queue_purge("q") == 2
    Producer(channel).publish(3, exchange="x", routing_key="k")
    queue.delete()
    assert server.keys() <= {"_kombu.binding_permanent.x"}


def test_expiring_queue__publish__renews_its_lists(connect: Connect, server: Server) -> None:
    connection = connect()
    Queue("q", expires=60)(connection.default_channel).declare()
    publish(connection, 1)
    assert 0 < server.redis.pttl(f"{server.prefix}q") <= 60_000


def test_simple_queue__round_trip__holds_one_message_at_a_time(connect: Connect, server: Server) -> None:
    with connect().SimpleQueue("q") as queue:
        queue.put({"n": 1})
        queue.put({"n": 2})
        message = queue.get(timeout=30)
        assert message.payload == {"n": 1}
        assert len(server.bodies()) == 1
        message.ack()
        assert queue.qsize() == 1
        with pytest.raises(queue.Empty):
            queue.get_nowait() and queue.get(timeout=0.2)
        queue.clear()


def test_key_prefix__every_key__has_it(connect: Connect, server: Server) -> None:
    with redis_keys_outside(server) as outside:
        connection = connect()
        publish(connection, 1, 2)
        inbox = Inbox(connection, prefetch=1)
        connection.drain_events(timeout=30)
        inbox.messages[0].ack()
    assert outside == []
    assert {"q", "q\x06\x16wake"} <= server.keys()


@contextlib.contextmanager
def redis_keys_outside(server: Server) -> Any:
    before = set(server.redis.scan_iter(count=1000))
    outside: list[bytes] = []
    yield outside
    prefix = server.prefix.encode()
    outside += [
        key for key in server.redis.scan_iter(count=1000) if key not in before and not key.startswith(prefix)
    ]


def test_ack_hooks__commands__ride_in_the_ack_transaction(connect: Connect, server: Server) -> None:
    stream, told = f"{server.prefix}events", []

    def record(pipe: Pipeline, tags: Sequence[str]) -> Any:
        for tag in tags:
            pipe.xadd(stream, {"tag": tag})
        return lambda: told.extend(tags)

    connection = connect(ack_hooks=[record])
    publish(connection, 1, 2)
    inbox = Inbox(connection, prefetch=2)
    connection.drain_events(timeout=30)
    tags = [message.delivery_tag for message in inbox.messages]
    for message in inbox.messages:
        message.ack()
    assert [entry[b"tag"].decode() for _, entry in server.redis.xrange(stream)] == tags == told


def test_ack_hooks__server_refuses_them__acks_still_go(connect: Connect, server: Server) -> None:
    server.redis.set(f"{server.prefix}events", "not a stream")
    told: list[str] = []

    def record(pipe: Pipeline, tags: Sequence[str]) -> Any:
        pipe.xadd(f"{server.prefix}events", {"n": 1})
        return lambda: told.extend(tags)

    connection = connect(ack_hooks=[record])
    publish(connection, 1)
    inbox = Inbox(connection)
    connection.drain_events(timeout=30)
    inbox.messages[0].ack()
    assert server.unacked() == set()
    assert told == []


def test_acks__connection_lost__stay_until_the_server_has_answered(connect: Connect, server: Server) -> None:
    connection = connect()
    publish(connection, 1)
    inbox = Inbox(connection)
    connection.drain_events(timeout=30)
    channel = inbox.channel
    sent = channel.acks._transact

    def lost(*args: Any) -> None:
        raise ConnectionResetError

    channel.acks._transact = lost
    with pytest.raises(ConnectionResetError):
        inbox.messages[0].ack()
    assert len(channel.acks) == 1
    channel.acks._transact = sent
    channel.close()
    assert server.unacked() == set()
    assert server.bodies() == []  # acknowledged, not given back


def test_acks__channel_is_closed__are_dropped(connect: Connect, server: Server) -> None:
    connection = connect()
    queue = connection.SimpleQueue("q")
    queue.put("a")
    message = queue.get(timeout=30)
    connection.close()
    message.ack()
    assert len(server.bodies()) == 1  # given back at the close


def test_threads__one_connection_a_thread_and_acks_from_all__lose_nothing(
    connect: Connect, server: Server
) -> None:
    pool = connect().Pool(4)

    def produce(start: int) -> None:
        for number in range(start, start + 50):
            with pool.acquire(block=True) as connection:
                publish(connection, number)

    _in_threads([lambda start=start: produce(start) for start in range(0, 400, 50)])
    connection = connect()
    inbox = Inbox(connection, prefetch=400)
    drained(connection)
    assert sorted(inbox.bodies) == list(range(400))
    _in_threads(
        [
            lambda part=part: [message.ack() for message in part]
            for part in (inbox.messages[:200], inbox.messages[200:])
        ]
    )
    assert server.unacked() == set()
    pool.force_close_all()


def _in_threads(actions: Sequence[Any]) -> None:
    threads = [threading.Thread(target=action) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_fork__child__forgets_what_its_parent_holds(connect: Connect) -> None:
    connection = connect()
    publish(connection, 1)
    inbox = Inbox(connection)
    connection.drain_events(timeout=30)
    channel = inbox.channel
    assert channel.held
    channel._after_fork()
    assert not channel.held
    assert len(channel.acks) == 0


def test_give_back__of_what_was_delivered_some__next_in_line_in_their_order_and_as_if_never_claimed(
    connect: Connect, server: Server
) -> None:
    publish(connect(), 1, 2, 3, 4)
    before = server.bodies()
    connection = connect()
    inbox = Inbox(connection, prefetch=4)
    drained(connection)
    tags = [message.delivery_tag for message in inbox.messages]
    publish(connect(), 5)
    inbox.messages[1].ack()
    inbox.channel.qos.give_back([*tags[1:], "a tag of nobody"])
    assert [json.loads(raw)["body"] for raw in server.bodies()[:2]] == [
        json.loads(raw)["body"] for raw in before[2:]
    ]
    assert inbox.channel.qos.can_consume_max_estimate() == 3  # it holds the first one
    other = connect().default_channel
    found = [other.basic_get("q") for _ in range(3)]
    assert [message.decode() for message in found] == [3, 4, 5]
    assert not any(message.delivery_info.get("redelivered") for message in found)
    inbox.channel.qos.give_back(tags[2:])  # somebody else's by now
    assert other.basic_get("q") is None
    connection.release()
    assert other.basic_get("q").decode() == 1
