"""One id from the first byte of a request to its last log line: header → contextvar → logs, jobs, upstreams, answers."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import structlog

from .middleware import Around

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from .middleware import Finish

HEADER = "X-Request-Id"

# Goes into logs, headers and mails as it came: nothing that could end a line, a header or a quoted string.
_VALID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_current: ContextVar[str | None] = ContextVar("request_id", default=None)


def new() -> str:
    return uuid.uuid4().hex


def accept(value: str | None) -> str:
    """The caller's id when it is 1 to 128 characters of [A-Za-z0-9._-], else a new one."""
    return value if value and _VALID.fullmatch(value) else new()


def current() -> str | None:
    return _current.get()


@contextmanager
def bound(value: str) -> Iterator[str]:
    """`value` is the current request id inside the block, for `current()` and for every structlog line."""
    token = _current.set(value)
    try:
        with structlog.contextvars.bound_contextvars(request_id=value):
            yield value
    finally:
        _current.reset(token)


class RequestIdMiddleware(Around):
    """First in MIDDLEWARE."""

    @contextmanager
    def around(self, request: HttpRequest) -> Iterator[Finish]:
        with bound(_adopt(request)) as value:

            def finish(response: HttpResponseBase) -> HttpResponseBase:
                response[HEADER] = value
                return response

            yield finish


def _adopt(request: HttpRequest) -> str:
    value = accept(request.META.get("HTTP_X_REQUEST_ID"))
    # django_structlog and views read the header: they must see the id that we accepted, not the one that was sent.
    request.META["HTTP_X_REQUEST_ID"] = value
    request.__dict__.pop("headers", None)
    return value
