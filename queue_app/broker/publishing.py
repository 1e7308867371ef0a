"""How this platform's Celery app publishes: the queue's delivery, the priority's list or queue, and the first event.

    apply_async → ledger row, where the queue says so | PENDING and the message, together

One place for `.delay()`, `.apply_async()`, `send_task`, retries and canvas: all of them end in `send_task_message`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.app import amqp
from kombu.exceptions import KombuError

from queue_app.states import Priority, priority_class
from queue_app.states import priority as checked

from . import deliveries, descriptions, events, stream, topology
from .descriptions import HEADER, Call
from .events import Event


class Queues(amqp.Queues):
    """The app's queues on RabbitMQ: whatever asks for a name gets the queue that topology.py says."""

    def add(self, queue: Any, **options: Any) -> Any:
        return self._add(topology.named(queue if isinstance(queue, str) else queue.name))

    def new_missing(self, name: str) -> Any:
        return topology.named(name)


class AMQP(amqp.AMQP):
    """Celery's, with our queues and our sender."""

    def Queues(self, queues: Any, *args: Any, **options: Any) -> Any:
        if topology.is_rabbitmq_url(str(self.app.conf.broker_write_url)):
            self.queues_cls = Queues
            queues = queues or [topology.named(self.app.conf.task_default_queue)]
        return super().Queues(queues, *args, **options)

    def _create_task_sender(self) -> Callable[..., Any]:
        return Sender(self.app, super()._create_task_sender())


class Sender:
    """Celery's `send_task_message` with ours around it."""

    def __init__(self, app: Any, send: Callable[..., Any]) -> None:
        self._app, self._send = app, send

    def __call__(self, producer: Any, name: str, message: Any, **options: Any) -> Any:
        """priority: on our scale, 9 is urgent. Raises ValueError for one off the scale."""
        headers, _, body, _ = message
        given = options.pop("priority", None)
        level = Priority.NORMAL if given is None else checked(given)
        queue = topology.target(options, self._app.conf.task_default_queue)
        known = self._app._tasks.get(name)
        max_retries = known.max_retries if known is not None else 0
        call = Call(name, queue, level, headers, body[0], body[1], max_retries)
        if _may_be_stored(name, headers, body) and deliveries.of(queue) == deliveries.LEDGER:
            deliveries.store_call(call)
            return None
        headers[HEADER] = _ours(options) | {"queue": queue, "priority": level}
        options |= topology.route(producer.connection, queue, priority_class(level), options)
        if headers.get("retries"):  # the run before it tells FAILED, with when
            headers[HEADER]["recorded"] = True
            return self._send(producer, name, message, **options)
        about = descriptions.of_call(call)
        event = [events.PENDING, headers["id"], 1, descriptions.now(), list(about)]
        return self._tell_and_send(producer, name, message, options, event)

    def _tell_and_send(
        self, producer: Any, name: str, message: Any, options: dict[str, Any], event: Event
    ) -> Any:
        """With our transport in one pipeline with the message; else first the event, then the message."""
        if not stream.rides():
            return self._tell_then_send(producer, name, message, options, event)
        batch = producer.batch()
        try:
            with batch:
                session = batch.state._get_session(producer.channel)
                if session is not None:
                    stream.add(
                        session.pipeline, producer.channel.full_key(stream.KEY), events.pack("", [event])
                    )
                    message[0][HEADER]["recorded"] = True
                return self._send(producer, name, message, **options | {"retry": False})
        except (KombuError, OSError, *producer.connection.connection_errors):
            if not batch.is_outermost:
                raise
            # A pipeline is sent once; Celery's own way tries again, as the publish policy says.
            message[0][HEADER].pop("recorded", None)
            return self._send(producer, name, message, **options)

    def _tell_then_send(
        self, producer: Any, name: str, message: Any, options: dict[str, Any], event: Event
    ) -> Any:
        message[0][HEADER]["recorded"] = stream.tell([event])
        try:
            return self._send(producer, name, message, **options)
        except Exception:
            if message[0][HEADER]["recorded"]:
                stream.tell(
                    [
                        [
                            events.CANCELLED,
                            event[events.ID],
                            1,
                            descriptions.now(),
                            None,
                            False,
                            None,
                            "not published",
                        ]
                    ]
                )
            raise


def _may_be_stored(name: str, headers: dict[str, Any], body: Any) -> bool:
    """Whether the ledger can carry it: a first call that no workflow waits for."""
    embed = body[2]
    in_canvas = headers.get("group") or any(
        embed.get(key) for key in ("callbacks", "errbacks", "chain", "chord")
    )
    return not (headers.get("retries") or in_canvas or name == descriptions.BROKER_RUN)


def _ours(options: dict[str, Any]) -> dict[str, Any]:
    """Our header, where the caller has one; Celery would put the caller's headers over ours."""
    headers = dict(options.get("headers") or {})
    found = headers.pop(HEADER, None) or {}
    options["headers"] = headers
    return {"tenant": found["tenant"]} if found.get("tenant") else {}
