"""For the tests of whoever uses the queue: docs/queue-testing.md. No production code imports it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .assertions import all_enqueued, assert_enqueued, assert_enqueues, refute_enqueued, refute_enqueues
    from .broker import Published, eager, no_broker
    from .draining import Drained, EndlessDrain, adrain, drain, perform
    from .frozen import FrozenClock, fire_schedules, frozen_time

__all__ = [
    "Drained",
    "EndlessDrain",
    "FrozenClock",
    "Published",
    "adrain",
    "all_enqueued",
    "assert_enqueued",
    "assert_enqueues",
    "drain",
    "eager",
    "fire_schedules",
    "frozen_time",
    "no_broker",
    "perform",
    "refute_enqueued",
    "refute_enqueues",
]

_HOMES = {
    "Drained": "draining",
    "EndlessDrain": "draining",
    "FrozenClock": "frozen",
    "Published": "broker",
    "adrain": "draining",
    "all_enqueued": "assertions",
    "assert_enqueued": "assertions",
    "assert_enqueues": "assertions",
    "drain": "draining",
    "eager": "broker",
    "fire_schedules": "frozen",
    "frozen_time": "frozen",
    "no_broker": "broker",
    "perform": "draining",
    "refute_enqueued": "assertions",
    "refute_enqueues": "assertions",
}


def __getattr__(name: str) -> Any:
    """PEP 562, as of `queue_app`: a conftest may be read before the app registry is ready."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
