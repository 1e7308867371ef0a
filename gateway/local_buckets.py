"""Token buckets that this process counts alone, for plans that go on so while the store is down."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from . import bucket
from .bucket import Ask, Limit, Taken

MAX_LOCAL_BUCKETS = 10_000


class LocalBuckets:
    """The least recently used ones are forgotten, which fills them again."""

    def __init__(self, size: int = MAX_LOCAL_BUCKETS) -> None:
        self._levels: OrderedDict[str, bucket.Level] = OrderedDict()
        self._size = size
        self._guard = threading.Lock()

    def take(self, limits: Sequence[Limit], now: float, cost: float = 1.0) -> Taken:
        with self._guard:
            before = [self._levels.get(limit.key) for limit in limits]
            taken, after = bucket.take(before, limits, int(now * 1000000), Ask(cost, cost))
            for limit, level in zip(limits, after, strict=True):
                if level is not None:
                    self._levels[limit.key] = level
                    self._levels.move_to_end(limit.key)
            while len(self._levels) > self._size:
                self._levels.popitem(last=False)
        return taken
