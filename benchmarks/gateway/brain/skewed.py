"""`python -m benchmarks.gateway.brain.skewed SECONDS COMMAND…`: manage.py on a machine whose clock is that much ahead.

The time module of this process is what is put off, so all of Python's clocks agree with each other; datetime and the
event loop, which read the system's own, do not take part in any limit.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

CLOCKS = ("time", "monotonic", "perf_counter")


def ahead(clock: Callable[[], float], by: float) -> Callable[[], float]:
    return lambda: clock() + by


def skew(seconds: float) -> None:
    for name in CLOCKS:
        setattr(time, name, ahead(getattr(time, name), seconds))
        setattr(time, f"{name}_ns", ahead(getattr(time, f"{name}_ns"), round(seconds * 1e9)))


if __name__ == "__main__":
    skew(float(sys.argv[1]))
    sys.argv[:] = ["manage.py", *sys.argv[2:]]
    import manage  # after the clock: what is imported from here on may keep a clock's function

    manage.main()
