"""What the messages of broker jobs say about their jobs, bounded, as the events carry it."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from billiard.einfo import ExceptionWithTraceback
from kombu.utils.json import dumps

from foundation import request_id as request_ids

from . import events, payloads
from .conf import conf
from .events import About
from .states import Priority

HEADER = "brain"  # of a message that this platform published: {"queue", "priority", "recorded"}
_MOST_ATTEMPTS = 2**31 - 1  # of a task that may be retried for ever
_LONGEST_REPR = 1000


def now() -> float:
    """Seconds since 1970 by this host's clock, as the events carry it."""
    return time.time_ns() / 1e9


def payload(args: Any, kwargs: Any, *, max_bytes: int) -> str:
    """The call as JSON text; what is too large or not JSON is not kept, and the text says so.

    By Kombu's JSON, which the message has as well: dates and UUIDs come back as what they were.
    """
    try:
        text = dumps({"args": args, "kwargs": kwargs}, allow_nan=False)
        payloads.check_text(text, max_bytes=max_bytes)
    except (TypeError, ValueError, RecursionError) as error:
        return not_kept(args, kwargs, reason=str(error))
    return str(text)


def not_kept(args: Any, kwargs: Any, *, reason: str) -> str:
    shown = {"args": _shown(args), "kwargs": _shown(kwargs)}
    return str(dumps({"not_kept": events.clean(reason)[:200], **shown}))


def request_id() -> str:
    """Of the request or the job in which this code runs, or empty."""
    found = request_ids.current() or structlog.contextvars.get_contextvars().get("request_id")
    return str(found or "")[:128]


def of_call(
    name: str,
    queue: str,
    priority: int,
    headers: dict[str, Any],
    args: Any,
    kwargs: Any,
    max_retries: int | None,
) -> About:
    """At publication. headers: as Celery has made them."""
    return About(
        name=name[:200],
        queue=queue[:100],
        priority=priority,
        payload=payload(args, kwargs, max_bytes=conf().MAX_PAYLOAD_BYTES),
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
    about = of_call(
        request._type,
        ours.get("queue") or request.delivery_info.get("routing_key") or "",
        ours.get("priority", Priority.NORMAL),
        headers,
        request.args,
        request.kwargs,
        request.task.max_retries,
    )
    return about._replace(request_id=str(bound.get("request_id") or "")[:128])


def of_message(queue: str, message: Any) -> About:
    """Of a message that no worker has taken apart."""
    headers = message.headers
    ours = headers.get(HEADER) or {}
    try:
        args, kwargs, _ = message.decode()
    except Exception as error:  # noqa: BLE001  (whatever a body may hold)
        args, kwargs = f"{type(error).__name__}: not readable", None
    return of_call(
        str(headers.get("task")),
        queue,
        ours.get("priority", Priority.NORMAL),
        headers,
        args,
        kwargs,
        max_retries=0,
    )


def error(exc_info: Any, original: BaseException | None = None) -> dict[str, str]:
    """Type, message and the end of the traceback, of `original` where Celery has wrapped it."""
    found = original or raised(exc_info)
    traceback = str(exc_info.traceback or "")[-conf().MAX_TRACEBACK_BYTES :]
    told = {"type": type(found).__name__, "message": _text(found)[:1000], "traceback": traceback}
    return {key: events.clean(value) for key, value in told.items()}


def raised(exc_info: Any) -> Any:
    """The exception itself, which billiard wraps so that it survives the way between processes."""
    found = exc_info.exception
    return found.exc if isinstance(found, ExceptionWithTraceback) else found


def _shown(value: Any) -> str:
    try:
        return events.clean(repr(value)[:_LONGEST_REPR])
    except Exception:  # noqa: BLE001  (somebody else's __repr__)
        return "?"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  (somebody else's __str__)
        return ""


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
