"""Ours, with failures ignored: for the figures while the server is gone."""

from __future__ import annotations

from .brain import BACKEND, configure


class Side:
    def __init__(self, url: str, prefix: str) -> None:
        cache = configure(url, prefix, BACKEND, {"ON_DOWN": "ignore"})
        self.get, self.set = cache.get, cache.set
