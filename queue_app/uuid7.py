"""UUID version 7 (RFC 9562, 5.7): ids that sort by the time they were made, also within one millisecond of a process."""

from __future__ import annotations

import secrets
import threading
import time
from uuid import UUID

_lock = threading.Lock()
_last = 0  # milliseconds and a 12-bit counter, as one number


def uuid7() -> UUID:
    global _last
    now = (time.time_ns() // 1_000_000) << 12 | secrets.randbits(11)
    with _lock:
        # A counter seeded at random (RFC 9562, 6.2, method 1); it runs over into the next millisecond.
        _last = stamp = max(now, _last + 1)
    milliseconds, counter = stamp >> 12, stamp & 0xFFF
    return UUID(int=milliseconds << 80 | 7 << 76 | counter << 64 | 2 << 62 | secrets.randbits(62))
