"""Whether the broker answers, and how many workers are alive."""

from __future__ import annotations

import time

from kombu.exceptions import KombuError

from foundation.health import Health

from . import wakeup, workers


def check() -> Health:
    """Connects to the broker anew, with a short timeout. Workers are named but do not count: jobs wait for them."""
    began = time.monotonic()
    broker = wakeup.connection()
    kind = broker.transport.driver_type
    try:
        with broker:
            broker.ensure_connection(max_retries=0, timeout=broker.connect_timeout)
    except (KombuError, OSError, *broker.connection_errors) as error:
        return Health("broker", False, f"{kind} does not answer: {type(error).__name__}", _since_ms(began))
    took_ms = _since_ms(began)
    count = workers.alive()
    return Health("broker", True, f"{kind} answers; {count} worker{'' if count == 1 else 's'} alive", took_ms)


def _since_ms(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)
