"""Which keys of a memory store are over: by the second in which they end, so that nobody looks at the others. Pure."""

from __future__ import annotations

import heapq
import math


class Ends:
    """Ends are seconds of the store's clock, math.inf = never. A key is noted under one end at a time.

    A heap of all the ends would keep those of overwritten keys until their time: here an overwritten key leaves its
    second at once, and only the seconds stand in a heap.
    """

    def __init__(self) -> None:
        self._keys: dict[int, set[str]] = {}
        self._seconds: list[int] = []  # a heap; one whose keys have all gone is skipped

    def note(self, key: str, end: float) -> None:
        if end == math.inf:
            return
        second = int(end)
        keys = self._keys.get(second)
        if keys is not None:
            keys.add(key)
            return
        self._keys[second] = {key}
        heapq.heappush(self._seconds, second)
        if len(self._seconds) > 2 * len(self._keys) + 64:
            self._seconds = list(self._keys)
            heapq.heapify(self._seconds)

    def drop(self, key: str, end: float) -> None:
        if end == math.inf:
            return
        second = int(end)
        keys = self._keys[second]
        keys.remove(key)
        if not keys:
            del self._keys[second]

    def over(self, now: float) -> str | None:
        """A key whose second is over, still noted: who drops it gets the next one."""
        seconds = self._seconds
        while seconds and seconds[0] < int(now):
            keys = self._keys.get(seconds[0])
            if keys:
                return next(iter(keys))
            heapq.heappop(seconds)
        return None
