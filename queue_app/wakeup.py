"""The broker's part: a message that says "look at this job". Losing one costs time, sending it twice costs nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence

import structlog
from celery import current_app
from kombu import pools
from kombu.connection import Connection
from kombu.exceptions import KombuError

from . import ledger
from .conf import conf
from .ledger import Wakeup
from .states import HIGHEST

log = structlog.get_logger(__name__)

RUN = "queue_app.run"  # the Celery task of engine.py
_DOWN_S = 1.0  # after a failure nobody waits for the broker for this long: the reconciler publishes instead
_down_until = 0.0


def publish(wakeups: Sequence[Wakeup]) -> bool:
    """Tell the broker about jobs whose rows are committed. Never raises for a broker that is down: False, and the rows
    are marked for the reconciler. Waits PUBLISH_TIMEOUT_S at most for each step of the broker's answer.
    """
    global _down_until
    if time.monotonic() >= _down_until:
        broker = connection()
        try:
            _send(wakeups, broker)
            return True
        except (KombuError, OSError, *broker.connection_errors, *broker.channel_errors) as error:
            _down_until = time.monotonic() + _DOWN_S
            log.warning("wakeups_not_published", jobs=len(wakeups), error=type(error).__name__)
    ledger.unpublish([wakeup.id for wakeup in wakeups])
    return False


def depth(queue: str) -> int:
    """Messages that wait in the broker for this queue."""
    with connection() as broker:
        try:
            return int(broker.default_channel.queue_declare(queue, passive=True).message_count)
        except broker.channel_errors:  # it does not exist yet
            return 0


def connection() -> Connection:
    """A broker connection that gives up soon, where Celery's own would try for minutes. Not yet connected."""
    timeout_s = conf().PUBLISH_TIMEOUT_S
    broker = current_app.connection_for_write(
        connect_timeout=timeout_s, transport_options={"max_retries": 0, "interval_start": 0}
    )
    if _is_redis(broker):
        broker.transport_options |= {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    return broker


def _send(wakeups: Sequence[Wakeup], broker: Connection) -> None:
    zero_first = _is_redis(broker)  # Kombu serves priority 0 first there, AMQP 9
    with pools.producers[broker].acquire(block=True, timeout=conf().PUBLISH_TIMEOUT_S) as producer:
        for wakeup in wakeups:
            current_app.send_task(
                RUN,
                kwargs={"id": str(wakeup.id)},
                task_id=str(wakeup.id),  # Celery's own log lines name the job
                queue=wakeup.queue,
                priority=HIGHEST - wakeup.priority if zero_first else wakeup.priority,
                ignore_result=True,
                retry=False,
                producer=producer,
            )


def _is_redis(broker: Connection) -> bool:
    return bool(broker.transport.driver_type == "redis")
