"""For the tests of whoever uses the queue: docs/queue-testing.md. No production code imports it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .assertions import all_enqueued, assert_enqueued, assert_enqueues, refute_enqueued, refute_enqueues
    from .broker import Published, eager, no_broker
    from .draining import Drained, EndlessDrain, adrain, drain, perform
    from .faults import Deliveries, crash, deliver_twice, fail, lost_lease
    from .frozen import FrozenClock, fire_schedules, frozen_time
    from .outages import broker_down, database_down, publish_due

__all__ = [
    "Deliveries",
    "Drained",
    "EndlessDrain",
    "FrozenClock",
    "Published",
    "adrain",
    "all_enqueued",
    "assert_enqueued",
    "assert_enqueues",
    "broker_down",
    "crash",
    "database_down",
    "deliver_twice",
    "drain",
    "eager",
    "fail",
    "fire_schedules",
    "frozen_time",
    "lost_lease",
    "no_broker",
    "perform",
    "publish_due",
    "refute_enqueued",
    "refute_enqueues",
]

_HOMES = {
    "Deliveries": "faults",
    "Drained": "draining",
    "EndlessDrain": "draining",
    "FrozenClock": "frozen",
    "Published": "broker",
    "adrain": "draining",
    "all_enqueued": "assertions",
    "assert_enqueued": "assertions",
    "assert_enqueues": "assertions",
    "broker_down": "outages",
    "crash": "faults",
    "database_down": "outages",
    "deliver_twice": "faults",
    "drain": "draining",
    "eager": "broker",
    "fail": "faults",
    "fire_schedules": "frozen",
    "frozen_time": "frozen",
    "lost_lease": "faults",
    "no_broker": "broker",
    "perform": "draining",
    "publish_due": "outages",
    "refute_enqueued": "assertions",
    "refute_enqueues": "assertions",
}


def __getattr__(name: str) -> Any:
    """PEP 562, as of `queue_app`: a conftest may be read before the app registry is ready."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
