"""UUID version 7 (RFC 9562, 5.7): ids that sort by the time they were made, also within one millisecond of a process."""

from __future__ import annotations

import os
import threading
import time
from uuid import UUID

_lock = threading.Lock()
_last = 0  # milliseconds and a 12-bit counter, as one number
_FIXED = 7 << 76 | 2 << 62  # version and variant


def uuid7() -> UUID:
    global _last
    chance = int.from_bytes(os.urandom(10), "big")
    # A counter seeded at random, in its lower half so that there is room (RFC 9562, 6.2, method 1); it runs over into
    # the next millisecond.
    now = (time.time_ns() // 1_000_000) << 12 | chance >> 69
    with _lock:
        _last = stamp = max(now, _last + 1)
    return UUID(int=(stamp >> 12) << 80 | _FIXED | (stamp & 0xFFF) << 64 | chance & 0x3FFF_FFFF_FFFF_FFFF)
