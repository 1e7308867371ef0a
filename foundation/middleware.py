"""A middleware that does the same around sync and async views, written once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

if TYPE_CHECKING:  # the edge binds request ids as well, without Django
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    Finish = Callable[[HttpResponseBase], HttpResponseBase]


class Around(ABC):
    """Sync or async after the chain it stands in: no thread is entered for it."""

    sync_capable: ClassVar[bool] = True
    async_capable: ClassVar[bool] = True

    def __init__(
        self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]
    ) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    @abstractmethod
    def around(self, request: HttpRequest) -> AbstractContextManager[Finish]:
        """What holds while the request is answered, and what becomes of the answer. Must not block: async views too."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._acall(request)
        with self.around(request) as finish:
            return finish(cast("HttpResponseBase", self.get_response(request)))

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        with self.around(request) as finish:
            return finish(await cast("Awaitable[HttpResponseBase]", self.get_response(request)))
