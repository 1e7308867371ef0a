"""Guesses at our own passwords are counted: per user name and address, and per address, so that neither can be guessed
through. Admin login and token endpoints count together."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django_ratelimit.core import get_usage

from . import forwarding
from .conf import conf


def wait_s(request: HttpRequest, username: Any) -> int:
    """Count a try, and say how many seconds to wait before another: 0 lets this one through."""
    address = _address(request)
    return _counted(request, "gateway.token", f"{address}|{username}", conf().TOKEN_RATE) or _counted(
        request, "gateway.token.ip", address, conf().TOKEN_RATE_PER_IP
    )


def renewal_wait_s(request: HttpRequest) -> int:
    """The same for renewing a token, which names no user."""
    return _counted(request, "gateway.refresh.ip", _address(request), conf().TOKEN_RATE_PER_IP)


def _address(request: HttpRequest) -> str:
    """Of the client, as the trusted proxies before us tell it."""
    fields = [
        (name.encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in request.headers.items()
    ]
    peer = request.META.get("REMOTE_ADDR", "")
    return forwarding.sender(peer, b"http", fields, forwarding.networks(conf().TRUSTED_PROXIES)).ip


def _counted(request: HttpRequest, group: str, key: str, rate: str) -> int:
    usage = get_usage(request, group=group, key=lambda group, request: key, rate=rate, increment=True)
    return max(1, usage["time_left"]) if usage is not None and usage["should_limit"] else 0
