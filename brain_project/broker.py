"""The Celery broker's URL: Redis and Valkey through the queue's own transport, everything else as it is."""

from __future__ import annotations

from queue_app.transport import register, transport_url

_STOCK = "stock+"  # before a Redis URL: Kombu's own transport, for a comparison or a client that needs it


def url(given: str) -> str:
    """The URL for Celery. ValueError when a Redis URL holds an option that a broker cannot take."""
    if given.startswith(_STOCK):
        return given.removeprefix(_STOCK)
    register()
    return transport_url(given)
