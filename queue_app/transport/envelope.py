"""The JSON around a message: read strictly, so that what nobody can read is parked instead of stopping its consumer."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from kombu.transport import virtual
from kombu.utils.json import loads

_JSON = "application/json"
DEATHS = "x-delivery-count"  # RabbitMQ's name for it


class BadEnvelope(ValueError):
    """It cannot be delivered: not JSON, not an envelope, or with a body that does not decode."""


class TakenBackTooOften(BadEnvelope):
    """Nothing is wrong with it, but its consumers die. queue: where it lay. envelope: without its count."""

    def __init__(self, queue: str, times: int, envelope: dict[str, Any]) -> None:
        super().__init__(f"delivery limit: taken back from {times} consumers that died")
        self.queue, self.envelope = queue, envelope


class Message(virtual.Message):
    """Kombu's message. Raises BadEnvelope where that one raises whatever it stumbled over."""

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:
        try:
            super().__init__(payload, channel=channel, **kwargs)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise BadEnvelope(f"not an envelope: {type(error).__name__}") from error

    def _decode(self) -> Any:
        # Most bodies are JSON without typed values. Kombu looks for those in every object, which takes as long as all
        # the rest of delivering a task.
        body: Any = self.body
        is_json = self.content_type == _JSON and _JSON in (self.accept or ()) and isinstance(body, bytes)
        if is_json and b'"__type__"' not in body:
            with suppress(ValueError):  # let Kombu say what is wrong with it
                return json.loads(body)
        return super()._decode()


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


def bodiless(task: str, ids: Sequence[str], queue: str, priority: int) -> list[str]:
    """The envelopes that Kombu's Producer makes of messages without a body and with the headers `task` and `id`.

    Published straight to `queue`. ids: nothing that JSON would have to escape.
    """
    before, between, after = _around(task, queue, priority)
    tag = uuid4()  # one for all and their numbers: making 500 of them takes as long as all the rest
    return [f'{before}{id}{between}{id}{after}{tag}-{number}"}}}}' for number, id in enumerate(ids)]


@functools.lru_cache(maxsize=1024)
def _around(task: str, queue: str, priority: int) -> tuple[str, str, str]:
    task, queue = json.dumps(task), json.dumps(queue)
    return (
        f'{{"body": "", "content-encoding": "utf-8", "content-type": "text/plain", "headers": {{"task": {task}, "id": "',
        '"}, "properties": {"correlation_id": "',
        '", "delivery_mode": 2, "delivery_info": {"exchange": "", "routing_key": '
        f'{queue}}}, "priority": {priority}, "body_encoding": "base64", "delivery_tag": "',
    )


def count_death(envelope: dict[str, Any]) -> int:
    """How many consumers have died of it now. The count travels with the message: nobody has to look after it.

    Among the properties, because Celery's retry copies the headers into another message.
    """
    properties = envelope["properties"]
    before = properties.get(DEATHS)
    properties[DEATHS] = (before if isinstance(before, int) else 0) + 1
    return int(properties[DEATHS])


def mark_redelivered(envelope: dict[str, Any]) -> None:
    """As stock Kombu marks what it restores."""
    for holder in (envelope.get("headers"), envelope["properties"].get("delivery_info")):
        if isinstance(holder, dict):
            holder["redelivered"] = True
