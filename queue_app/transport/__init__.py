"""A Kombu transport for Redis and Valkey that never holds the only copy of a message; see docs/transport.md.

    connection → channel → claims (lua/) → qos, acks → closing     what nobody can read or survive → parking → parked

It needs kombu and redis only, so any Celery app may use it: `register()` once, then `broker_url = transport_url(url)`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .urls import SCHEMES, transport_url

if TYPE_CHECKING:
    from .acks import AckHook
    from .server import UnsuitableServer

__all__ = ["SCHEMES", "AckHook", "UnsuitableServer", "register", "transport_url"]

_HOMES = {"AckHook": "acks", "UnsuitableServer": "server"}


def register() -> None:
    """Tell Kombu our URL schemes. Call it in every process, before Celery opens the broker URL; again is harmless."""
    from kombu.transport import TRANSPORT_ALIASES

    for scheme, transport in SCHEMES.items():
        TRANSPORT_ALIASES[scheme] = f"{__name__}.connection:{transport}"


def __getattr__(name: str) -> Any:
    """PEP 562: a web process that only builds the broker's URL loads neither kombu nor redis for it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
