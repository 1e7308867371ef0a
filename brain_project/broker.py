"""The Celery broker: Redis and Valkey through the queue's own transport, everything else as it is."""

from __future__ import annotations

from typing import Any

from kombu.transport import TRANSPORT_ALIASES

from queue_app.transport import SCHEMES, register, transport_url

# Kombu's own transport, for a comparison or a client that needs it: stock-redis://host/0.
_STOCK = {"stock-redis": "kombu.transport.redis:Transport", "stock-rediss": "kombu.transport.redis:Transport"}


def url(given: str) -> str:
    """The URL for Celery; once more is harmless. ValueError when a Redis URL holds an option that a broker cannot take."""
    register()
    TRANSPORT_ALIASES.update(_STOCK)
    return transport_url(given)


def transport_options(url: str, sentinel_master: str = "") -> dict[str, Any]:
    """Celery's broker_transport_options for this URL. sentinel_master: the group's name, for sentinel:// only."""
    scheme = url.partition("://")[0]
    if scheme.partition("+")[0] not in {*SCHEMES, *_STOCK}:
        return {"confirm_publish": True}
    options: dict[str, Any] = {
        "visibility_timeout": 300,  # seconds; what is held longer is renewed
        "health_check_interval": 5,
    }
    return options | ({"master_name": sentinel_master} if sentinel_master else {})
