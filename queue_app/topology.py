"""Where the messages of a queue lie on each broker: the one place that publishers, workers and the depth read.

| broker   | a queue is                                                                              |
|----------|-----------------------------------------------------------------------------------------|
| Redis    | one Kombu queue, a list for each priority class (steps 0, 3, 6, 9)                      |
| RabbitMQ | a quorum queue for each class: `<queue>.critical`, `.high`, `<queue>`, `.low`; `<queue>.dead` |
"""

from __future__ import annotations

from typing import Any

from kombu.entity import Exchange, Queue

from .conf import conf
from .states import CLASSES, Priority

REDIS_STEPS = dict(zip(CLASSES, (0, 3, 6, 9), strict=True))  # Kombu's lists of a queue; 0 is served first
DEAD = ".dead"
_SUFFIXES = {
    Priority.CRITICAL: ".critical",
    Priority.HIGH: ".high",
    Priority.NORMAL: "",
    Priority.LOW: ".low",
}
# A topic, because Celery's delayed delivery on RabbitMQ (quorum queues) routes by patterns.
_EXCHANGE = Exchange("brain.jobs", type="topic", durable=True)
_DELAYED = "celery_delayed_"
_DELAY_BITS = 28


def is_rabbitmq(driver: str) -> bool:
    return driver == "amqp"


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
            "x-delivery-limit": conf().MAX_CRASHES,
            # At least once needs reject-publish: a message leaves only when the dead-letter queue has it.
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": f"{name}{DEAD}",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )


def dead_queue(name: str) -> Queue:
    """RabbitMQ's queue for what the broker itself has given up; the default exchange routes to it."""
    return Queue(f"{name}{DEAD}", durable=True, no_declare=False, queue_arguments={"x-queue-type": "quorum"})


def broker_queues(name: str) -> list[Queue]:
    """RabbitMQ's queues of a queue that workers consume, the most urgent first."""
    return [broker_queue(name, level) for level in CLASSES]


def consumed(name: str, driver: str) -> list[str]:
    """The names of the broker's queues behind a queue, the most urgent first."""
    return [f"{name}{_SUFFIXES[level]}" for level in CLASSES] if is_rabbitmq(driver) else [name]


def queue_of(broker_name: str) -> str:
    """The queue that a broker's queue belongs to."""
    for suffix in filter(None, (*_SUFFIXES.values(), DEAD)):
        if broker_name.endswith(suffix):
            return broker_name.removesuffix(suffix)
    return broker_name


def route(driver: str, queue: str, level: Priority, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a publication that depend on the broker and on the priority class."""
    if driver == "redis":
        return {"priority": REDIS_STEPS[level]}
    if not is_rabbitmq(driver):
        return {"priority": int(level)}
    if _is_delayed(options):
        return {"routing_key": f"{options['routing_key']}{_word(_SUFFIXES[level])}"}
    found = broker_queue(queue, level)
    return {"queue": found, "exchange": None, "routing_key": None, "declare": [found, dead_queue(queue)]}


def target(options: dict[str, Any], default: str) -> str:
    """The queue that Celery's router has chosen for a publication."""
    queue = options.get("queue")
    if queue is not None:
        return queue_of(queue if isinstance(queue, str) else queue.name)
    key = options.get("routing_key")
    if _is_delayed(options):
        return _name(str(key).split(".", _DELAY_BITS)[-1])
    return str(key or default)


def _is_delayed(options: dict[str, Any]) -> bool:
    exchange = options.get("exchange")
    return str(getattr(exchange, "name", exchange) or "").startswith(_DELAYED)


def _word(name: str) -> str:
    """One word of a routing key: the dots of a name would match the patterns of other queues."""
    return name.replace(".", "~")


def _name(word: str) -> str:
    return word.replace("~", ".")
