"""What the messages of broker jobs say about their jobs, bounded, as the events carry it."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from billiard.einfo import ExceptionWithTraceback
from kombu.utils.json import dumps

from foundation import request_id as request_ids
from queue_app import failures, payloads
from queue_app.conf import conf
from queue_app.states import Priority

from .events import About

HEADER = "brain"  # of a message that this platform published: {"queue", "priority", "recorded"}
BROKER_RUN = "queue_app.broker_run"  # the Celery task of handlers.py, which carries the jobs of `enqueue`
_MOST_ATTEMPTS = 2**31 - 1  # of a task that may be retried for ever
_LONGEST_REPR = 1000


def now() -> float:
    """Seconds since 1970 by this host's clock, as the events carry it."""
    return time.time_ns() / 1e9


def payload(value: Any, *, max_bytes: int) -> str:
    """A payload as JSON text; what is too large or not JSON is not kept, and the text says so.

    By Kombu's JSON, which the message has as well: dates and UUIDs come back as what they were.
    """
    try:
        text = dumps(value, allow_nan=False)
        payloads.check_text(text, max_bytes=max_bytes)
    except (TypeError, ValueError, RecursionError) as error:
        return str(dumps({"not_kept": failures.clean(str(error))[:200], "shown": _shown(value)}))
    return str(text)


def request_id() -> str:
    """Of the request or the job in which this code runs, or empty."""
    found = request_ids.current() or structlog.contextvars.get_contextvars().get("request_id")
    return str(found or "")[:128]


class Call(NamedTuple):
    """Of a Celery task. headers: as Celery has made them, with ours. priority: on our scale."""

    name: str
    queue: str
    priority: int
    headers: dict[str, Any]
    args: Any
    kwargs: Any
    max_retries: int | None


def of_call(call: Call) -> About:
    """At publication."""
    name, queue, priority, headers, args, kwargs, max_retries = call
    ours = headers.get(HEADER) or {}
    limit = min(conf().MAX_PAYLOAD_BYTES, conf().OFFLOAD_BYTES)  # what a row may hold
    if name == BROKER_RUN and args:  # a job of `enqueue`: its task and payload are the arguments
        name, text, max_retries = str(args[0]), payload(args[1], max_bytes=limit), args[2] - 1
    else:
        text = payload({"args": args, "kwargs": kwargs}, max_bytes=limit)
    return About(
        name=name[:200],
        queue=queue[:100],
        tenant=str(ours.get("tenant", ""))[:64],
        priority=priority,
        payload=text,
        request_id=request_id(),
        max_attempts=_MOST_ATTEMPTS if max_retries is None else max_retries + 1,
        parent=_parent(headers.get("parent_id")),
        run_after=_seconds(headers.get("eta")),
        expires_at=_seconds(headers.get("expires")),
    )


def of_request(request: Any) -> About:
    """In the worker: of a message whose publication was not recorded, by another program or without the stream."""
    headers = request.request_dict
    ours = headers.get(HEADER) or {}
    bound = headers.get("__django_structlog__") or {}
    call = Call(
        request._type,
        ours.get("queue") or request.delivery_info.get("routing_key") or "",
        ours.get("priority", Priority.NORMAL),
        headers,
        request.args,
        request.kwargs,
        request.task.max_retries,
    )
    return of_call(call)._replace(request_id=str(bound.get("request_id") or "")[:128])


def of_message(queue: str, message: Any) -> About:
    """Of a message that no worker has taken apart."""
    headers = message.headers
    ours = headers.get(HEADER) or {}
    try:
        args, kwargs, _ = message.decode()
    except Exception as error:  # noqa: BLE001  (whatever a body may hold)
        args, kwargs = f"{type(error).__name__}: not readable", None
    call = Call(
        str(headers.get("task")),
        queue,
        ours.get("priority", Priority.NORMAL),
        headers,
        args,
        kwargs,
        max_retries=0,
    )
    return of_call(call)


def error(exc_info: Any, original: BaseException | None = None) -> dict[str, str]:
    """Type, message and the end of the traceback, of `original` where Celery has wrapped it."""
    found = original or raised(exc_info)
    return failures.told(found, str(exc_info.traceback or ""), max_bytes=conf().MAX_TRACEBACK_BYTES)


def raised(exc_info: Any) -> Any:
    """The exception itself, which billiard wraps so that it survives the way between processes."""
    found = exc_info.exception
    return found.exc if isinstance(found, ExceptionWithTraceback) else found


def _shown(value: Any) -> str:
    try:
        return failures.clean(repr(value)[:_LONGEST_REPR])
    except Exception:  # noqa: BLE001  (somebody else's __repr__)
        return "?"


def _parent(id: Any) -> str | None:
    try:
        return str(UUID(id)) if id else None
    except (ValueError, TypeError, AttributeError):
        return None


def _seconds(moment: Any) -> float | None:
    """Seconds since 1970 of Celery's ISO text."""
    try:
        return datetime.fromisoformat(moment).timestamp() if moment else None
    except (ValueError, TypeError):
        return None
