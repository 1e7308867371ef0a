"""The JSON around a message: read strictly, so that what nobody can read is parked instead of stopping its consumer."""

from __future__ import annotations

import json
from typing import Any

from kombu.transport import virtual
from kombu.utils.json import loads


class BadEnvelope(ValueError):
    """It cannot be delivered: not JSON, not an envelope, or with a body that does not decode."""


class Message(virtual.Message):
    """Kombu's message. Raises BadEnvelope where that one raises whatever it stumbled over."""

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:
        try:
            super().__init__(payload, channel=channel, **kwargs)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise BadEnvelope(f"not an envelope: {type(error).__name__}") from error


def read(raw: bytes, tag: str) -> dict[str, Any]:
    """The envelope, whose delivery tag the claim has read as `tag`. Raises BadEnvelope."""
    try:
        # Kombu's own reader looks at every object for typed values and takes twice as long.
        envelope: dict[str, Any] = loads(raw.decode()) if b'"__type__"' in raw else json.loads(raw)
        properties = envelope["properties"]
        if str(properties["delivery_tag"]) != tag:
            raise BadEnvelope("the delivery tag is not among its properties")
        properties["delivery_tag"] = tag
    except BadEnvelope:
        raise
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise BadEnvelope(f"not an envelope: {type(error).__name__}") from error
    return envelope


def mark_redelivered(envelope: dict[str, Any]) -> None:
    """As stock Kombu marks what it restores."""
    for holder in (envelope.get("headers"), envelope["properties"].get("delivery_info")):
        if isinstance(holder, dict):
            holder["redelivered"] = True
