"""Messages of Celery's tasks on their way to the slots of a worker that runs threads.

    transport → message → Request → slots → its end → acknowledgements, together

Celery's way does the same with two promises, a future and a second decoding for each message, which take longer than a
short task. What is out of the ordinary still goes its way: a message with an ETA or an expiry, of a revoked or
rate-limited task, of the first protocol; and everything while somebody listens to Celery's events.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import signals
from celery.app import trace
from celery.exceptions import InvalidTaskError
from celery.utils.imports import symbol_by_name
from celery.worker import state
from celery.worker import strategy as stock
from celery.worker.request import create_request_cls
from kombu.exceptions import ContentDisallowed, DecodeError

from queue_app.broker.celery_task import Request

from .slots import Slots, TaskCall

logger = stock.logger

_Handler = Callable[[Any], None]
_UNUSUAL = ("eta", "expires", "stamped_headers")  # headers


def install(consumer: Any, slots: Slots) -> None:
    """Celery asks for a handler at every (re)connection."""
    consumer.create_task_handler = partial(_handler, consumer, slots)


def _handler(consumer: Any, slots: Slots) -> _Handler:
    otherwise: _Handler = type(consumer).create_task_handler(consumer)
    if consumer.hub is None:
        return otherwise
    acknowledgements = Acknowledgements(consumer)
    receptions: dict[str, Reception | None] = {}

    def on_message(message: Any) -> None:
        if slots.is_closed:  # the worker stops: what comes now goes back with the connection
            return
        name = message.headers.get("task") if type(message.headers) is dict else None
        if type(name) is str and name not in receptions:
            receptions[name] = _reception(consumer, name, slots, acknowledgements)
        reception = receptions.get(name) if type(name) is str else None
        if reception is None or not reception.accept(message):
            otherwise(message)

    return on_message


def _reception(
    consumer: Any, name: str, slots: Slots, acknowledgements: Acknowledgements
) -> Reception | None:
    """None where the task has a way of its own, or is not known."""
    task = consumer.app.tasks.get(name)
    if task is None or symbol_by_name(task.Strategy) is not stock.default:
        return None
    is_ours = issubclass(symbol_by_name(task.Request), Request)
    return Reception(consumer, task, slots, acknowledgements) if is_ours else None


class Waiting(partial[None]):
    """A request on its way to a slot; called when it has one."""

    __slots__ = ()

    @property
    def request(self) -> Any:
        return self.args[0]


class Reception:
    """Of one task's messages, on one connection."""

    def __init__(self, consumer: Any, task: Any, slots: Slots, acknowledgements: Acknowledgements) -> None:
        self._consumer, self._task, self._slots = consumer, task, slots
        self._acknowledgements = acknowledgements
        app, eventer = consumer.app, consumer.event_dispatcher
        request_cls: Any = symbol_by_name(task.Request)
        self._request = partial(
            create_request_cls(request_cls, task, consumer.pool, consumer.hostname, eventer, app=app),
            app=app,
            hostname=consumer.hostname,
            eventer=eventer,
            task=task,
            connection_errors=consumer.connection_errors,
            decoded=True,
        )
        self._trace = trace.fast_trace_task if app.use_fast_trace_task else trace.trace_task_ret
        self._revoked = consumer.controller.state.revoked
        self._logs = logger.isEnabledFor(logging.INFO)

    def accept(self, message: Any) -> bool:
        """Whether the message is on its way; else it is untouched, and Celery's to handle."""
        headers = message.headers
        if not self._is_usual(headers):
            return False
        try:
            payload = message.payload
            if type(payload) is not list or len(payload) != 3:
                return False
            acknowledge = partial(self._acknowledgements.add, message)
            request = self._request(
                message,
                on_ack=acknowledge,
                on_reject=partial(self._reject, message),
                body=payload,
                headers=headers,
            )
        except (InvalidTaskError, ContentDisallowed, DecodeError, LookupError, TypeError, ValueError):
            return False  # Celery says what is wrong with it
        self._begin(request)
        return True

    def _is_usual(self, headers: dict[str, Any]) -> bool:
        consumer, task = self._consumer, self._task
        return not (
            any(map(headers.get, _UNUSUAL))
            or headers.get("id") in self._revoked
            or _tells_events(consumer.event_dispatcher)
            or (not consumer.disable_rate_limits and consumer.task_buckets[task.name])
            or consumer.on_task_message
            or _restores_prefetch(consumer)
        )

    def _begin(self, request: Any) -> None:
        if self._logs:
            context = {
                "id": request.id,
                "name": request.name,
                "args": request.argsrepr,
                "kwargs": request.kwargsrepr,
                "eta": None,
            }
            logger.info(trace.LOG_RECEIVED, context, extra={"data": context})
        signals.task_received.send(sender=self._consumer, request=request)
        state.task_reserved(request)
        args = (self._task.name, request.id, request.request_dict, request.body, None, None)
        call = TaskCall(self._trace, args, request.on_accepted, request.on_success, request.on_failure)
        self._slots.submit(Waiting(self._run, request, call))

    def _run(self, request: Any, call: TaskCall) -> None:
        """On a slot. Celery's thread pool runs what was revoked while it waited for one."""
        if request.id in self._revoked and request.revoked():
            return
        call()

    def _reject(self, message: Any, log: Any, errors: Any, requeue: bool = False) -> None:
        self._consumer.call_soon(message.reject_log_error, log, errors, requeue)


def _tells_events(dispatcher: Any) -> bool:
    """About tasks: its heartbeats are events as well."""
    if dispatcher is None or not dispatcher.enabled:
        return False
    return not dispatcher.groups or "task" in dispatcher.groups


def _restores_prefetch(consumer: Any) -> bool:
    """After a lost connection Celery counts acknowledgements until its prefetch has grown back."""
    return (
        consumer.restart_count > 0
        and not consumer._maximum_prefetch_restored
        and consumer._new_prefetch_count <= consumer.max_prefetch_count
    )


class Acknowledgements:
    """Those of a connection, handed from the slots to the loop: what comes until it turns goes in one turn."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._messages: deque[Any] = deque()
        self._is_awaited = False

    def add(self, message: Any, log: Any, errors: Any) -> None:
        self._messages.append(message)
        if not self._is_awaited:
            self._is_awaited = True
            self._consumer.call_soon(self._send)

    def _send(self) -> None:
        self._is_awaited = False  # before the first is taken: who comes from now on has another turn
        errors = self._consumer.connection_errors
        while self._messages:
            message = self._messages.popleft()
            # When its connection is gone the message comes again by itself.
            if message.channel.connection is not None:
                message.ack_log_error(logger, errors)
