"""Every request is one unit of work (`orm_app.work`), and sees what its client has written before. Stands behind the request id's middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from foundation import request_id

from . import last_write, work


class UnitOfWorkMiddleware:
    """Sync or async after the chain it stands in: no thread is entered for it."""

    sync_capable = True
    async_capable = True

    def __init__(
        self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]
    ) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._acall(request)
        with _unit(request) as unit:
            response = cast(HttpResponseBase, self.get_response(request))
            last_write.remember(response, unit)
            return response

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        with _unit(request) as unit:
            response = await cast("Awaitable[HttpResponseBase]", self.get_response(request))
            last_write.remember(response, unit)
            return response


def _unit(request: HttpRequest) -> AbstractContextManager[work.Unit]:
    name = f"{request.method} {request.path}"
    return work.unit("request", name, request_id.current() or "", last_write.since(request))
