"""A part of a cache that is ended in one step: `cache.namespace("users").invalidate()`.

Its number is a tag's: entries carry the one they were stored under, and raising it leaves none of them readable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from . import stats
from .entries import MISSING, Entries, Read
from .store import StoreFailed

if TYPE_CHECKING:
    from .backend import BrainCache


class Namespace:
    """Keys are `name:key`. Every call has a twin with an `a` for async code; statistics are kept apart."""

    def __init__(self, cache: BrainCache, name: str) -> None:
        if not name:
            raise ValueError("a namespace needs a name")
        self.cache = copy(cache)  # what it counts, it counts for the namespace
        self.cache.counts = self.counts = stats.counts(cache.alias, name)
        self.name, self.tag = name, f"namespace:{name}"

    # --- for threads -------------------------------------------------------------------------------------------------
    def get(self, key: Any, default: Any = None) -> Any:
        full = self._full(key)
        try:  # with its number in one round trip
            return self._found(self.cache.read(full, (self.tag,)), default)
        except StoreFailed as failed:
            return self._last_known(failed, full, default)

    def set(
        self,
        key: Any,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        *,
        tags: Sequence[str] = (),
        **options: Any,
    ) -> bool:
        return self.cache.set(self._key(key), value, timeout, tags=(self.tag, *tags), **options)

    def get_many(self, keys: Iterable[Any]) -> dict[Any, Any]:
        asked = {self._key(key): key for key in keys}
        return {asked[key]: value for key, value in self.cache.get_many(asked).items()}

    def set_many(self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, **options: Any) -> list[Any]:
        """Returns the keys that could not be stored. options: as of `cache.set_many`."""
        given = {self._key(key): key for key in data}
        items = {name: data[key] for name, key in given.items()}
        return [given[name] for name in self.cache.set_many(items, timeout, **self._tagged(options))]

    def delete(self, key: Any) -> bool:
        return self.cache.delete(self._key(key))

    def invalidate(self) -> bool:
        """End all of it. False: the store is down and that is ignored."""
        return self.cache.invalidate_tags(self.tag)

    # --- for the event loop ------------------------------------------------------------------------------------------
    async def aget(self, key: Any, default: Any = None) -> Any:
        full = self._full(key)
        try:
            return self._found(await self.cache.aread(full, (self.tag,)), default)
        except StoreFailed as failed:
            return self._last_known(failed, full, default)

    async def aset(
        self,
        key: Any,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        *,
        tags: Sequence[str] = (),
        **options: Any,
    ) -> bool:
        return await self.cache.aset(self._key(key), value, timeout, tags=(self.tag, *tags), **options)

    async def aget_many(self, keys: Iterable[Any]) -> dict[Any, Any]:
        asked = {self._key(key): key for key in keys}
        return {asked[key]: value for key, value in (await self.cache.aget_many(asked)).items()}

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, **options: Any
    ) -> list[Any]:
        given = {self._key(key): key for key in data}
        items = {name: data[key] for name, key in given.items()}
        return [given[name] for name in await self.cache.aset_many(items, timeout, **self._tagged(options))]

    async def adelete(self, key: Any) -> bool:
        return await self.cache.adelete(self._key(key))

    async def ainvalidate(self) -> bool:
        return await self.cache.ainvalidate_tags(self.tag)

    # --- parts -------------------------------------------------------------------------------------------------------
    def _key(self, key: Any) -> str:
        return f"{self.name}:{key}"

    def _tagged(self, options: dict[str, Any]) -> dict[str, Any]:
        return options | {"tags": (self.tag, *options.get("tags", ()))}

    def _full(self, key: Any) -> str:
        return self.cache.full_key(self._key(key))

    def _last_known(self, failed: StoreFailed, full: str, default: Any) -> Any:
        value, meta = self.cache._open(full, self.cache._last_known(failed, full))
        return self._found(Read(value, meta, value is not MISSING, {}, self.cache.tier), default)

    def _found(self, read: Read, default: Any) -> Any:
        if not read.is_found or (read.meta is not None and Entries._is_over(read.meta)):
            self.counts.add("misses")
            return default
        self.counts.add(f"hits_{read.tier}")
        return read.value
