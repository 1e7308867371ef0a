"""The health of everything the platform stands on, gathered from the apps."""

from __future__ import annotations

import time

from cache_app import health as cache
from foundation.health import Health
from gateway import soundness
from orm_app import standing
from queue_app import health as queue

CHECKS = (standing.probe, cache.check, queue.check, queue.check_recorder, soundness.check)
FRESH_S = 1.0  # probes by many load balancers cost the dependencies one look a second

_seen: tuple[float, list[Health]] = (float("-inf"), [])


def gather() -> list[Health]:
    """One entry for each dependency; at most FRESH_S old."""
    global _seen
    now = time.monotonic()
    if now - _seen[0] > FRESH_S:
        _seen = (now, [check() for check in CHECKS])
    return _seen[1]
