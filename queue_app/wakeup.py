"""The broker's part: a message that says "look at this job". Losing one costs time, sending it twice costs nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from uuid import UUID

import structlog
from celery import current_app
from kombu import pools
from kombu.connection import Connection
from kombu.exceptions import KombuError
from kombu.messaging import Producer
from kombu.resource import Resource

from . import publication
from .broker import topology
from .conf import conf
from .publication import Wakeup
from .states import HIGHEST, priority_class
from .transport import envelope
from .transport.channel import Channel

log = structlog.get_logger(__name__)

LOOK = UUID(int=0)  # the id of no job: whoever consumes it looks whose turn it is
RUN = "queue_app.run"  # the Celery task of strategy.py
BATCH = 500  # messages in one round trip, where the transport can
_DOWN_S = 1.0  # after a failure nobody waits for the broker for this long: the reconciler publishes instead
_down_until = 0.0
_broker: tuple[object, Connection, Resource] | None = None
_taker: Callable[[Sequence[Wakeup]], bool] | None = None


def publish(wakeups: Sequence[Wakeup]) -> bool:
    """Tell the broker about jobs whose rows are committed. Never raises for a broker that is down: False, and the rows
    are marked for the reconciler. Waits PUBLISH_TIMEOUT_S at most for each step of the broker's answer.
    """
    global _down_until
    if _taker is not None:
        return _taker(wakeups)
    if conf().EAGER:
        from . import eager  # which stands on nearly everything here

        return eager.run(wakeups)
    if time.monotonic() >= _down_until:
        broker, brokers = _shared()
        try:
            _send(wakeups, brokers)
            return True
        except (KombuError, OSError, *broker.connection_errors, *broker.channel_errors) as error:
            _down_until = time.monotonic() + _DOWN_S
            log.warning("wakeups_not_published", jobs=len(wakeups), error=type(error).__name__)
    publication.unpublish([wakeup.id for wakeup in wakeups])
    return False


@contextmanager
def taken_by(taker: Callable[[Sequence[Wakeup]], bool] | None) -> Iterator[None]:
    """In the block, for all threads of this process, what is to be published goes to `taker`; None: to the broker again."""
    global _taker
    before, _taker = _taker, taker
    try:
        yield
    finally:
        _taker = before


def look(queue: str) -> Wakeup:
    """For a queue with limits: jobs wait for their turn that did not a moment ago. Overtakes all that is published."""
    return Wakeup(LOOK, queue, HIGHEST)


def depth(queue: str) -> int:
    """Messages that wait in the broker for this queue, of all its priority classes."""
    return depths([queue])[queue]


def depths(queues: Iterable[str]) -> dict[str, int]:
    """Of each of these queues, by one connection."""
    with connection() as broker:
        driver = broker.transport.driver_type
        return {
            queue: sum(_waiting(broker, name) for name in topology.consumed(queue, driver))
            for queue in queues
        }


def _waiting(broker: Connection, name: str) -> int:
    channel: Any = broker.channel()  # of its own: RabbitMQ closes it when there is no such queue
    try:
        return int(channel.queue_declare(name, passive=True).message_count)
    except broker.channel_errors:  # it does not exist yet
        return 0
    finally:
        channel.close()


def connection() -> Connection:
    """A broker connection that gives up soon, where Celery's own would try for minutes. Not yet connected."""
    timeout_s = conf().PUBLISH_TIMEOUT_S
    broker = current_app.connection_for_write(
        connect_timeout=timeout_s, transport_options={"max_retries": 0, "interval_start": 0}
    )
    if _is_redis(broker):
        broker.transport_options |= {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    return broker


def _shared() -> tuple[Connection, Resource]:
    """This process's; the connection is only a key to Kombu's pool of them. A child of a fork makes its own."""
    global _broker
    # Not by its URL: Celery looks that up in six places, which takes longer than the publication.
    key = (os.getpid(), current_app._get_current_object(), conf().PUBLISH_TIMEOUT_S)
    if _broker is None or _broker[0] != key:
        broker = connection()
        _broker = key, broker, pools.connections[broker]
    return _broker[1:]


def _send(wakeups: Sequence[Wakeup], brokers: Resource) -> None:
    with brokers.acquire(block=True, timeout=conf().PUBLISH_TIMEOUT_S) as broker:
        channel = broker.default_channel
        if isinstance(channel, Channel):
            _put(channel, wakeups)
            return
        producer = Producer(channel)
        with producer.batch(max_size=BATCH) if len(wakeups) > 1 else nullcontext():
            for wakeup in wakeups:
                _publish(producer, wakeup, broker.transport.driver_type)


def _put(channel: Channel, wakeups: Sequence[Wakeup]) -> None:
    """Past Kombu, which spends more on each message than the database on its row."""
    lists: dict[tuple[str, int], list[str]] = {}
    for wakeup in wakeups:
        step = topology.REDIS_STEPS[priority_class(wakeup.priority)]
        lists.setdefault((wakeup.queue, step), []).append(str(wakeup.id))
    for (queue, step), ids in lists.items():
        for start in range(0, len(ids), BATCH):
            messages = envelope.bodiless(RUN, ids[start : start + BATCH], queue, step)
            channel.put_envelopes(queue, step, messages)


def _publish(producer: Producer, wakeup: Wakeup, driver: str) -> None:
    # Only headers, past Celery's own message: building that costs more than everything else here.
    id = str(wakeup.id)
    producer.publish(
        "",
        headers={"task": RUN, "id": id},
        content_type="text/plain",
        content_encoding="utf-8",
        correlation_id=id,
        **topology.direct(driver, wakeup.queue, priority_class(wakeup.priority)),
    )


def _is_redis(broker: Connection) -> bool:
    return bool(broker.transport.driver_type == "redis")
