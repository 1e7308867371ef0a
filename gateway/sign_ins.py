"""Guesses at our own passwords are counted: per user name and address, and per address, so that neither can be guessed
through. Admin login and token endpoints count together."""

from __future__ import annotations

import hashlib
import math
import time
from typing import Any

import redis
from django.core.cache.backends.locmem import LocMemCache
from django.http import HttpRequest
from django_ratelimit.core import _split_rate, get_usage

from . import forwarding
from .conf import conf

# Of this process alone, for as long as the counts of all processes cannot be reached.
_here = LocMemCache("gateway.sign_ins", {"OPTIONS": {"MAX_ENTRIES": 10_000}})


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
    """Of the client, as the trusted proxies before us tell it, and as the limits of routes count it."""
    fields = [
        (name.encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in request.headers.items()
    ]
    peer = request.META.get("REMOTE_ADDR", "")
    client = forwarding.sender(peer, b"http", fields, forwarding.networks(conf().TRUSTED_PROXIES))
    return forwarding.counted(client.ip, conf().LIMITER_IPV6_PREFIX)


def _counted(request: HttpRequest, group: str, key: str, rate: str) -> int:
    try:
        usage = get_usage(request, group=group, key=lambda group, request: key, rate=rate, increment=True)
    except (redis.RedisError, OSError):
        return _without_store(f"{group}|{key}", rate)
    return max(1, usage["time_left"]) if usage is not None and usage["should_limit"] else 0


def _without_store(key: str, rate: str) -> int:
    """LIMITER_ON_STORE_DOWN is for these limits too: whoever looks for what is wrong has to get in."""
    most, period_s = _split_rate(rate)
    now_s = time.monotonic()
    left_s = math.ceil(period_s - now_s % period_s)
    policy = conf().LIMITER_ON_STORE_DOWN
    if policy != "local":
        return left_s if policy == "deny" else 0
    digest = hashlib.sha256(f"{key}|{now_s // period_s}".encode()).hexdigest()
    _here.add(digest, 0, 2 * period_s)
    return left_s if _here.incr(digest) > most else 0
