"""cachetools' TTLCache by reference, behind the lock that its documentation asks threads to take."""

from __future__ import annotations

import threading
from typing import Any

from cachetools import TTLCache


class Side:
    def __init__(self, url: str, prefix: str) -> None:
        self.cache: TTLCache[str, Any] = TTLCache(10_000, 300)
        self.lock = threading.Lock()

    def get(self, key: str) -> Any:
        with self.lock:
            return self.cache.get(key)

    def set(self, key: str, value: Any) -> None:
        with self.lock:
            self.cache[key] = value
