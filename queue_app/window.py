"""How many jobs a worker process holds at once: few when they are long, so that others get them; many when they are short.

Pure: the engine feeds it durations and asks for the size.
"""

from __future__ import annotations

HOLD_S = 0.1  # what a process holds should be done in about this time
LONG_S = (
    5.0  # jobs of this length: none is held ahead, as what a slot waits for the next one is nothing to them
)
LARGEST = 256  # messages; more buys nothing (measured: 64 to 128 fill a worker of four threads)
_WEIGHT = 0.2  # of the newest batch in the running mean


class Window:
    """slots: jobs that run at once. Starts small and grows with evidence that jobs are short."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.is_shared = (
            False  # queues with limits: a turn that lies here is one that no other worker can use
        )
        self.observations = 0
        self._mean_s: float | None = None

    def observe(self, mean_s: float) -> None:
        """The mean duration of the jobs of one batch. A long batch counts at once, a short one by and by."""
        self.observations += 1
        old = self._mean_s
        if old is None or mean_s > old:
            self._mean_s = mean_s
        else:
            self._mean_s = old + _WEIGHT * (mean_s - old)

    @property
    def size(self) -> int:
        """Jobs to hold: slots × 2 at least, so that no slot waits for the database between two jobs; or, shared or long, slots."""
        is_long = self._mean_s is not None and self._mean_s >= LONG_S
        least = self.slots * (1 if self.is_shared or is_long else 2)
        if self._mean_s is None:
            return least
        fitting = int(self.slots * HOLD_S / max(self._mean_s, 1e-6))
        return max(least, min(LARGEST, fitting))
