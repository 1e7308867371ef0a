"""Requests for the gateway's routes leave the site's middleware aside: sessions, users, CSRF tokens and security headers are
those of our own pages, and cost a third of what passing a request on does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve

Next = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


class ProxiedMiddleware:
    """Second in MIDDLEWARE, after the request's id. The last URL pattern says what is the gateway's."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Next) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        view = _view(request)
        if view is None:
            return self.get_response(request)
        request.get_host()  # CommonMiddleware's check of ALLOWED_HOSTS; raises DisallowedHost
        if iscoroutinefunction(self):
            return sync_to_async(view, thread_sensitive=False)(request)
        return view(request)


def _view(request: HttpRequest) -> Callable[[HttpRequest], HttpResponseBase] | None:
    if request.path.startswith(settings.STATIC_URL):
        return None  # WhiteNoise's: no pattern names its files, so the gateway's would take them
    try:
        match = resolve(request.path_info)
    except Resolver404:
        return None
    if match.url_name != "proxy":
        return None
    request.resolver_match = match
    return match.func
