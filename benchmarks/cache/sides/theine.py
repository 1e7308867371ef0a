"""theine: W-TinyLFU by reference, no Django API over it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from theine import Cache


class Side:
    def __init__(self, url: str, prefix: str) -> None:
        self.cache: Any = Cache(10_000)

    def get(self, key: str) -> Any:
        return self.cache.get(key)

    def set(self, key: str, value: Any) -> None:
        self.cache.set(key, value, ttl=timedelta(seconds=300))
