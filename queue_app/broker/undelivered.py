"""What the broker itself has given up goes into the rows, also when no worker ever wrote a word about it.

    RabbitMQ's <queue>.dead → why (x-death) ─┐
    Redis' brain.given_up ───────────────────┴→ back to its queue | an event to the stream → acknowledged

Only where the recorder leads, so that it knows what the rows say.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from celery import current_app
from kombu.exceptions import KombuError
from kombu.utils.json import dumps, loads

from queue_app import policies, wakeup
from queue_app.models import Job
from queue_app.states import State
from queue_app.transport import parked
from queue_app.transport.envelope import BadEnvelope
from queue_app.transport.parked import ParkedEnvelope

from . import descriptions, events, stream, topology
from .descriptions import HEADER
from .events import Event
from .recorder import Recorder

log = structlog.get_logger(__name__)

_MOST = 100  # messages of a queue in one look
_AGAIN = "again"  # in our header: it has been sent back once


class Undelivered:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def look(self) -> None:
        if not self._recorder.leads:
            return
        if stream.rides():
            self._empty_given_up()
            return
        if not topology.is_rabbitmq_url(str(current_app.conf.broker_write_url)):
            return
        with wakeup.connection() as broker:
            for name in policies.by_name():
                self._empty(broker, name)

    def _empty_given_up(self) -> None:
        with stream.client() as (client, key):
            prefix = key.removesuffix(stream.KEY)
            for entry in parked.given_up(client, _MOST, prefix):
                try:
                    message = stream.message(entry.raw)
                    again = partial(_put_back, client, prefix, entry)
                    if not self._settled(entry.queue, message, "delivery_limit", "the transport", again):
                        return
                except BadEnvelope as error:  # it stays parked
                    log.warning("message_unreadable", queue=entry.queue, error=str(error))
                parked.recorded(client, entry, prefix)

    def _empty(self, broker: Any, name: str) -> None:
        channel = broker.channel()
        queue = topology.dead_queue(name)(channel)
        try:
            for _ in range(_MOST):
                message = queue.get()
                if message is None:
                    break
                why = _reason(message.headers or {}, name)
                if self._settled(name, message, why, "RabbitMQ", partial(_send_back, broker, name, message)):
                    message.ack()
                else:
                    message.requeue()
                    break
        except broker.channel_errors:  # there is no such queue
            return
        channel.close()

    def _settled(self, name: str, message: Any, reason: str, who: str, again: Callable[[], bool]) -> bool:
        """Whether nothing is left to be done about it. who: has given it up. again: sends it back to its queue."""
        headers = message.headers or {}
        if headers.get("task") == wakeup.RUN or "id" not in headers:
            return True  # a wake-up: the reconciler sends another while the row waits
        if reason == "delivery_limit" and self._never_ran(headers):
            return again()
        log.error(
            "message_dead_lettered",
            task_id=headers["id"],
            task=headers.get("task"),
            queue=name,
            reason=reason,
        )
        return stream.tell([_event(name, message, reason, who)])

    def _never_ran(self, headers: dict[str, Any]) -> bool:
        """It was with workers that died, prefetched or about to start, and no run of it is known: it may not be to blame."""
        if (headers.get(HEADER) or {}).get(_AGAIN):
            return False
        row = Job.objects.filter(id=events.job_id(headers["id"])).values_list("state", flat=True).first()
        return row is None or row == State.PENDING


def _put_back(client: Any, prefix: str, entry: ParkedEnvelope) -> bool:
    """Of the parked ones; whoever has put it back or discarded it meanwhile has settled it."""
    envelope = loads(entry.raw.decode())
    ours = envelope["headers"].get(HEADER) or {}
    envelope["headers"][HEADER] = ours | {_AGAIN: True}
    if parked.put_back(client, entry, dumps(envelope).encode(), prefix):
        _log_sent_back(envelope["headers"], entry.queue)
    return True


def _send_back(broker: Any, name: str, message: Any) -> bool:
    headers = {key: value for key, value in message.headers.items() if not key.startswith("x-")}
    headers[HEADER] = (headers.get(HEADER) or {}) | {_AGAIN: True}
    level = topology.class_of(_died_in(message.headers, name))
    properties = {key: message.properties.get(key) for key in ("correlation_id", "reply_to")}
    try:
        broker.Producer().publish(
            message.body,
            headers=headers,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            **{key: value for key, value in properties.items() if value is not None},
            **topology.direct(broker.transport.driver_type, name, level),
        )
    except (KombuError, OSError, *broker.connection_errors) as error:
        log.warning("message_not_sent_back", task_id=headers["id"], error=type(error).__name__)
        return False
    _log_sent_back(headers, name)
    return True


def _log_sent_back(headers: dict[str, Any], queue: str) -> None:
    log.warning(
        "message_sent_back", task_id=headers["id"], queue=queue, reason="delivery limit, but it never ran"
    )


def _event(name: str, message: Any, reason: str, who: str) -> Event:
    headers = message.headers
    attempt = (headers.get("retries") or 0) + 1
    about = list(descriptions.of_message(name, message))
    ending: tuple[int, Any] = (events.CANCELLED, "expired")
    if reason != "expired":
        text = f"{who} gave it up: {reason}"
        kind = "WorkerLost" if reason == "delivery_limit" else "Rejected"
        ending = (events.DEAD_LETTER, {"error": {"type": kind, "message": text, "traceback": ""}})
    return [ending[0], headers["id"], attempt, descriptions.now(), about, True, None, ending[1]]


def _deaths(headers: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Those in the queue's own queues: a delay on the way there counts as a death as well."""
    return [
        death for death in headers.get("x-death") or [] if topology.queue_of(str(death.get("queue"))) == name
    ]


def _reason(headers: dict[str, Any], name: str) -> str:
    deaths = _deaths(headers, name)
    return str(deaths[0].get("reason")) if deaths else "unknown"


def _died_in(headers: dict[str, Any], name: str) -> str:
    deaths = _deaths(headers, name)
    return str(deaths[0].get("queue")) if deaths else name
