"""Ours in two tiers; hits come from memory, decoded for each caller."""

from __future__ import annotations

import time

from benchmarks.cache.values import SMALL

from .brain import configure

OPTIONS: dict[str, object] = {}


class Side:
    def __init__(self, url: str, prefix: str, options: dict[str, object] = OPTIONS) -> None:
        cache = configure(url, prefix, "cache_app.tiered.TieredCache", options)
        self.get, self.set, self.get_many, self.aget, self.aset = (
            cache.get,
            cache.set,
            cache.get_many,
            cache.aget,
            cache.aset,
        )
        from cache_app import cached

        def load(key: str) -> object:
            return SMALL

        self.cached = cached(ttl=300)(load)
        cache.get("first")  # begins the tracking
        time.sleep(0.5)
