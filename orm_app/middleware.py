"""Every request is one unit of work (`orm_app.work`), and sees what its client has written before. Stands behind the request id's middleware."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from foundation import request_id
from foundation.middleware import Around

from . import last_write, work

if TYPE_CHECKING:
    from foundation.middleware import Finish


class UnitOfWorkMiddleware(Around):
    @contextmanager
    def around(self, request: HttpRequest) -> Iterator[Finish]:
        name = f"{request.method} {request.path}"
        with work.unit("request", name, request_id.current() or "", last_write.since(request)) as unit:

            def finish(response: HttpResponseBase) -> HttpResponseBase:
                last_write.remember(response, unit)
                return response

            yield finish
