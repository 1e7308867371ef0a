"""Whether the broker answers, how many workers are alive, and how far the recorder is behind."""

from __future__ import annotations

import time

from django.db import DatabaseError
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from foundation.health import Health

from . import wakeup, workers
from .broker import recorder
from .conf import conf


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
    return Health("broker", True, f"{kind} answers; {_workers()}", took_ms)


def _workers() -> str:
    try:
        count = workers.alive()
    except DatabaseError:  # away, or not migrated yet: what that comes to is not for the broker to say
        return "the workers' rows cannot be read"
    return f"{count} worker{'' if count == 1 else 's'} alive"


def check_recorder() -> Health:
    """Never down: jobs run without their record, which is late, as when no worker runs to write it."""
    began = time.monotonic()
    try:
        found = recorder.standing()
    except (RedisError, OSError, KombuError, DatabaseError) as error:
        detail = f"the events' stream cannot be looked at: {type(error).__name__}"
        return Health("recorder", True, detail, _since_ms(began), degraded=True)
    detail = f"{found.entries} entries in the stream, the oldest one not recorded is {found.lag_s:.0f} s old"
    return Health("recorder", True, detail, _since_ms(began), degraded=found.lag_s > conf().RECORDER_LAG_S)


def _since_ms(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)
