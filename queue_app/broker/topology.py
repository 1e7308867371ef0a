"""Where the messages of a queue lie on each broker: the one place that publishers, workers and the depth read.

| broker   | a queue is                                                                              |
|----------|-----------------------------------------------------------------------------------------|
| Redis    | one Kombu queue, a list for each priority class (steps 0, 3, 6, 9)                      |
| RabbitMQ | a quorum queue for each class: `<queue>.critical`, `.high`, `<queue>`, `.low`; `<queue>.dead` |
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from typing import Any

from celery import current_app
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.transport.native_delayed_delivery import (
    bind_queue_to_native_delayed_delivery_exchange,
    declare_native_delayed_delivery_exchanges_and_queues,
)

from queue_app.states import CLASSES, Priority

REDIS_STEPS = dict(zip(CLASSES, (0, 3, 6, 9), strict=True))  # Kombu's lists of a queue; 0 is served first
DEAD = ".dead"
DELIVERY_LIMIT = 3  # deliveries after the first one, then RabbitMQ moves a message to the dead letters
_SUFFIXES = {
    Priority.CRITICAL: ".critical",
    Priority.HIGH: ".high",
    Priority.NORMAL: "",
    Priority.LOW: ".low",
}
ENDINGS = (*(suffix for suffix in _SUFFIXES.values() if suffix), DEAD)  # no queue's own name may have one
# A topic, because Celery's delayed delivery on RabbitMQ (quorum queues) routes by patterns.
_EXCHANGE = Exchange("brain.jobs", type="topic", durable=True)
_DELAYED = "celery_delayed_"
_DELAY_BITS = 28
_PRECONDITION_FAILED = 406  # AMQP: declared with other arguments


_RABBITMQ_SCHEMES = {"amqp", "amqps", "pyamqp"}
_bound: set[tuple[int, str, str]] = set()  # queues that this process has bound to the delays of a broker


class OtherArguments(ValueError):
    """The broker has a queue of this name that was made with other arguments."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"RabbitMQ has a queue {name!r} with other arguments than ours (a quorum queue with a delivery limit and"
            " dead letters). Its arguments cannot be changed: empty it, delete it"
            f" (`rabbitmqctl delete_queue {name}`) and start again, or give this platform a virtual host of its own"
        )


def is_rabbitmq(driver: str) -> bool:
    return driver == "amqp"


def is_rabbitmq_url(url: str) -> bool:
    return url.partition("://")[0] in _RABBITMQ_SCHEMES


# --- names -----------------------------------------------------------------------------------------------------------
def consumed(name: str, driver: str) -> list[str]:
    """The names of the broker's queues behind a queue, the most urgent first."""
    return [f"{name}{_SUFFIXES[level]}" for level in CLASSES] if is_rabbitmq(driver) else [name]


def queue_of(broker_name: str) -> str:
    """The queue that a broker's queue belongs to."""
    for suffix in (*_SUFFIXES.values(), DEAD):
        if suffix and broker_name.endswith(suffix):
            return broker_name.removesuffix(suffix)
    return broker_name


def class_of(broker_name: str) -> Priority:
    return next(
        (level for level, suffix in _SUFFIXES.items() if suffix and broker_name.endswith(suffix)),
        Priority.NORMAL,
    )


# --- RabbitMQ's queues -----------------------------------------------------------------------------------------------
@cache
def broker_queue(name: str, level: Priority = Priority.NORMAL) -> Queue:
    """RabbitMQ's queue for one priority class of a queue."""
    full_name = f"{name}{_SUFFIXES[level]}"
    return Queue(
        full_name,
        _EXCHANGE,
        routing_key=_word(full_name),
        durable=True,
        queue_arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERY_LIMIT,
            # At least once needs reject-publish: a message leaves only when the dead-letter queue has it.
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": f"{name}{DEAD}",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )


def named(broker_name: str) -> Queue:
    """RabbitMQ's queue of this full name."""
    return broker_queue(queue_of(broker_name), class_of(broker_name))


@cache
def dead_queue(name: str) -> Queue:
    """RabbitMQ's queue for what the broker itself has given up; the default exchange routes to it."""
    return Queue(f"{name}{DEAD}", durable=True, queue_arguments={"x-queue-type": "quorum"})


def declare(connection: Connection, names: Iterable[str]) -> None:
    """Make RabbitMQ's queues of these queues, where they are missing. Raises OtherArguments; nothing for other brokers."""
    if not is_rabbitmq(connection.transport.driver_type):
        return
    for name in names:
        for queue in (*(broker_queue(name, level) for level in CLASSES), dead_queue(name)):
            _declare(connection, queue)


def _declare(connection: Connection, queue: Queue) -> None:
    channel = connection.channel()  # of its own: a refusal closes it
    try:
        queue(channel).declare()
    except connection.channel_errors as error:
        if getattr(error, "code", None) == _PRECONDITION_FAILED:
            raise OtherArguments(queue.name) from error
        raise
    channel.close()


# --- publications ----------------------------------------------------------------------------------------------------
def target(options: dict[str, Any], default: str) -> str:
    """The queue that Celery's router has chosen for a publication."""
    queue = options.get("queue")
    if queue is not None:
        return queue_of(queue if isinstance(queue, str) else queue.name)
    key = options.get("routing_key")
    if _is_delayed(options):
        return _name(str(key).split(".", _DELAY_BITS)[-1])
    return str(key or default)


def route(connection: Connection, queue: str, level: Priority, options: dict[str, Any]) -> dict[str, Any]:
    """The options of Celery's publication that depend on the broker and on the priority class."""
    driver = connection.transport.driver_type
    if driver == "redis":
        return {"priority": REDIS_STEPS[level]}
    if not is_rabbitmq(driver):
        return {"priority": int(level)}
    found = broker_queue(queue, level)
    if _is_delayed(options):
        _bind_to_delays(connection, found)
        return {"routing_key": f"{options['routing_key']}{_word(_SUFFIXES[level])}"}
    return {"queue": found, "exchange": None, "routing_key": None, "declare": [found, dead_queue(queue)]}


def direct(driver: str, queue: str, level: Priority) -> dict[str, Any]:
    """How a message is published straight to a queue: what Producer.publish takes."""
    if is_rabbitmq(driver):
        found = broker_queue(queue, level)
        return {"exchange": "", "routing_key": found.name, "declare": [found, dead_queue(queue)]}
    priority = REDIS_STEPS[level] if driver == "redis" else int(level)
    return {"exchange": "", "routing_key": queue, "priority": priority}


def _bind_to_delays(connection: Connection, queue: Queue) -> None:
    """Celery's workers bind the queues that they know when they start; a delayed message for another would be dropped."""
    key = (os.getpid(), connection.as_uri(), queue.name)
    if key in _bound:
        return
    with current_app.connection_for_write() as own:  # its own channels: those of a publication may be in use
        declare_native_delayed_delivery_exchanges_and_queues(own, "quorum")
        _declare(own, queue)
        _declare(own, dead_queue(queue_of(queue.name)))
        bind_queue_to_native_delayed_delivery_exchange(own, queue)
    _bound.add(key)


def _is_delayed(options: dict[str, Any]) -> bool:
    exchange = options.get("exchange")
    return str(getattr(exchange, "name", exchange) or "").startswith(_DELAYED)


def _word(name: str) -> str:
    """One word of a routing key: the dots of a name would match the patterns of other queues."""
    return name.replace(".", "~")


def _name(word: str) -> str:
    return word.replace("~", ".")
