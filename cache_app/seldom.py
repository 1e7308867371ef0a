"""A warning that would come with every call, said once per interval."""

from __future__ import annotations

import time
from typing import Any

from .conf import conf

_said: dict[str, float] = {}  # event → monotonic time of its last line


def warn(log: Any, event: str, **fields: Any) -> None:
    """At most one line per event and BRAIN["CACHE"]["LOG_EVERY_S"]."""
    now = time.monotonic()
    if now - _said.get(event, -1e9) >= conf().LOG_EVERY_S:
        _said[event] = now
        log.warning(event, **fields)


def forget() -> None:
    _said.clear()
