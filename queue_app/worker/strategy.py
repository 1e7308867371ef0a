"""Celery's hook for the messages of a task: the ledger's go to the engine in batches, past Celery's requests and pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from celery import shared_task
from celery.utils.log import get_logger

from queue_app import wakeup
from queue_app.broker import topology

from .engine import Engine, Message

logger = get_logger(__name__)

_engine: Engine | None = None


@shared_task(name=wakeup.RUN, ignore_result=True, Strategy=f"{__name__}:strategy")
def run(id: str | None = None) -> None:
    """Only a name: the strategy below takes its messages before they become calls."""
    raise RuntimeError("queue_app.run is for workers of this platform")


def serve(engine: Engine | None) -> None:
    """The engine of this worker process; None when it has stopped."""
    global _engine
    _engine = engine


def strategy(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., None]:
    """Called by Celery at every (re)connection, for the task above."""
    errors = consumer.connection_errors
    collected: list[Message] = []

    def hand_over() -> None:
        messages, collected[:] = list(collected), []
        if _engine is not None:  # else it is stopping: the messages go back with the connection
            _engine.receive(messages)

    def handle(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **_: Any) -> None:
        try:
            id = UUID(message.headers["id"])
        except (KeyError, ValueError, TypeError):
            logger.error("wakeup_without_an_id")
            message.ack_log_error(logger, errors)
            return
        if id == wakeup.LOOK:
            if _engine is not None:
                _engine.asked(topology.queue_of(message.delivery_info.get("routing_key") or ""))
            message.ack_log_error(logger, errors)
            return
        if not collected:
            consumer.call_soon(hand_over)  # after the transport has delivered its whole batch
        collected.append(Message(id, lambda: _acknowledge(message, errors)))

    return handle


def _acknowledge(message: Any, errors: tuple[type[Exception], ...]) -> None:
    # When its connection is gone the message comes again by itself, and Kombu's own Redis transport would end the worker.
    if message.channel.connection is not None:
        message.ack_log_error(logger, errors)
